//! Pauses between attempts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The pause before attempt `attempt` (1 is the second): the time that the server gives, or else `base`, doubled with each
/// attempt, at most `longest`. A random share of it (`jitter` between 0 and 1; half of "full jitter") keeps many clients
/// from retrying at the same time.
pub(super) fn pause(
    attempt: u32,
    server: Option<Duration>,
    base: Duration,
    longest: Duration,
    jitter: f64,
) -> Duration {
    match server {
        Some(server) => server.min(longest),
        None => {
            let doubled = base.saturating_mul(2u32.saturating_pow(attempt.saturating_sub(1)));
            doubled.min(longest).mul_f64(0.5 + 0.5 * jitter)
        }
    }
}

/// The value of a `Retry-After` header: seconds, or a date (RFC 9110, section 10.2.3).
pub(super) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let at = UNIX_EPOCH + Duration::from_secs(http_date(value)?);
    Some(at.duration_since(now).unwrap_or_default())
}

/// Seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let parts: Vec<&str> = text.split_whitespace().collect();
    let [_, day, month, year, time, "GMT"] = parts[..] else {
        return None;
    };
    let day: u64 = day.parse().ok()?;
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let year: u64 = year
        .parse()
        .ok()
        .filter(|year| (1970..10_000).contains(year))?;
    let clock: Vec<u64> = time
        .split(':')
        .map(|part| part.parse().ok())
        .collect::<Option<_>>()?;
    let [hours, minutes, seconds] = clock[..] else {
        return None;
    };
    // Years that begin in March have the leap day last.
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
    // 719,468 days lie between 0000-03-01 and 1970-01-01.
    Some(((days - 719_468) * 24 + hours) * 3600 + minutes * 60 + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777 - 30);
        let read = |value| retry_after(value, now);
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        assert_eq!(read(" 0.5 "), Some(Duration::from_millis(500)));
        assert_eq!(
            read("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(Duration::from_secs(30))
        );
        assert_eq!(read("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(
            http_date("Thu, 29 Feb 2024 12:00:00 GMT"),
            Some(1_709_208_000)
        );
        for wrong in ["-1", "soon", "Sun, 06 Nov 1994", "nan"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pause = |attempt, jitter| {
            pause(
                attempt,
                None,
                Duration::from_secs(1),
                Duration::from_secs(10),
                jitter,
            )
            .as_secs_f64()
        };
        assert_eq!(
            [1, 2, 3, 4, 5, 90].map(|attempt| pause(attempt, 1.0)),
            [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
        );
        assert_eq!(pause(2, 0.0), 1.0);
        let told = super::pause(
            1,
            Some(Duration::from_secs(99)),
            Duration::ZERO,
            Duration::from_secs(10),
            0.0,
        );
        assert_eq!(told, Duration::from_secs(10));
    }
}
