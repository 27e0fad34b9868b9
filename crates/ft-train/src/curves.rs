//! Loss curves as an SVG picture, from the log of a run.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use ft_core::safetensors_folder::write_file;
use serde_json::Value;

use crate::log::LOG;
use crate::{Error, Result};

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 400.0;
const MARGIN: f64 = 55.0;
const COLORS: [&str; 6] = [
    "#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#8c564b", "#e377c2",
];

/// A named line of points (step, value).
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// What the legend shows.
    pub name: String,
    /// Points in the order of their steps. Those that are not finite are left out.
    pub points: Vec<(f64, f64)>,
}

/// Draws `loss.svg` into the output folder of a run from its log: the loss of every step, faint, its moving mean, and that of every
/// evaluation set. Returns the path of the picture.
///
/// # Errors
///
/// If the log cannot be read, or the picture not be written.
pub fn draw_loss_curves(output_dir: impl AsRef<Path>) -> Result<PathBuf> {
    let log = output_dir.as_ref().join(LOG);
    let text = std::fs::read_to_string(&log).map_err(Error::read(&log))?;
    let path = output_dir.as_ref().join("loss.svg");
    write_file(&path, svg("loss", &curves_of(&text)).as_bytes())?;
    Ok(path)
}

fn curves_of(log: &str) -> Vec<Curve> {
    let mut curves: Vec<Curve> = Vec::new();
    let mut add = |name: &str, step: f64, value: Option<f64>| {
        let Some(value) = value else { return };
        match curves.iter_mut().find(|curve| curve.name == name) {
            Some(curve) => curve.points.push((step, value)),
            None => curves.push(Curve {
                name: name.to_string(),
                points: vec![(step, value)],
            }),
        }
    };
    let (mut mean, mut count) = (0.0, 0);
    for record in log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
    {
        let Some(step) = record["step"].as_f64() else {
            continue;
        };
        if let Some(loss) = record["loss"].as_f64() {
            add("training", step, Some(loss));
            // A mean of about 20 steps, without a bias towards 0 at the beginning.
            count += 1;
            mean += (loss - mean) * (1.0 / f64::from(count)).max(0.05);
            add("training, mean", step, Some(mean));
        }
        add("evaluation", step, record["eval_loss"].as_f64());
        for (name, found) in record["sets"].as_object().into_iter().flatten() {
            add(
                &format!("evaluation, {name}"),
                step,
                found["eval_loss"].as_f64(),
            );
        }
    }
    curves
}

/// A picture of curves over steps. The first of several is drawn faint.
///
/// ```
/// use ft_train::{Curve, svg};
///
/// let curve = Curve { name: "loss".into(), points: vec![(1.0, 3.0), (2.0, 2.5)] };
/// assert!(svg("loss", &[curve]).starts_with("<svg"));
/// ```
pub fn svg(title: &str, curves: &[Curve]) -> String {
    let finite = |point: &&(f64, f64)| point.0.is_finite() && point.1.is_finite();
    let all = || {
        curves
            .iter()
            .flat_map(|curve| curve.points.iter().filter(finite))
    };
    let range = |values: &mut dyn Iterator<Item = f64>| {
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| {
            (low.min(x), high.max(x))
        });
        match (low.is_finite(), high > low) {
            (false, _) => (0.0, 1.0),
            (true, false) => (low - 0.5, low + 0.5),
            (true, true) => (low, high),
        }
    };
    let (left, right) = range(&mut all().map(|point| point.0));
    let (low, high) = range(&mut all().map(|point| point.1));
    let x = |step: f64| MARGIN + (step - left) / (right - left) * (WIDTH - 2.0 * MARGIN);
    let y = |value: f64| HEIGHT - MARGIN - (value - low) / (high - low) * (HEIGHT - 2.0 * MARGIN);

    let mut out = String::new();
    // Writing to a text cannot fail.
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{}\" y=\"20\" text-anchor=\"middle\">{}</text>\n",
        WIDTH / 2.0,
        escaped(title)
    );
    for part in 0..=4 {
        let share = f64::from(part) / 4.0;
        let (step, value) = (left + share * (right - left), low + share * (high - low));
        let _ = write!(
            out,
            "<line x1=\"{MARGIN}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\n\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value:.4}</text>\n\
             <text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{step:.0}</text>\n",
            WIDTH - MARGIN,
            MARGIN - 5.0,
            y(value) + 4.0,
            x(step),
            HEIGHT - MARGIN + 18.0,
            y = y(value),
        );
    }
    for (place, curve) in curves.iter().enumerate() {
        let color = COLORS[place % COLORS.len()];
        let opacity = if place == 0 && curves.len() > 1 {
            0.3
        } else {
            1.0
        };
        let points: String = (curve.points.iter().filter(finite))
            .map(|point| format!("{:.1},{:.1} ", x(point.0), y(point.1)))
            .collect();
        let _ = write!(
            out,
            "<polyline fill=\"none\" stroke=\"{color}\" stroke-opacity=\"{opacity}\" stroke-width=\"1.5\" \
             points=\"{}\"/>\n<text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"{color}\">{}</text>\n",
            points.trim_end(),
            WIDTH - MARGIN,
            MARGIN + 15.0 * place as f64,
            escaped(&curve.name),
        );
    }
    out.push_str("</svg>\n");
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_come_from_the_log() {
        let log = "{\"step\":0,\"eval_loss\":3.0,\"sets\":{\"general\":{\"eval_loss\":2.0}}}\n\
                   {\"step\":1,\"loss\":4.0}\n{\"step\":2,\"loss\":2.0}\n{\"ste";
        let curves = curves_of(log);
        let named = |name: &str| {
            &curves
                .iter()
                .find(|curve| curve.name == name)
                .expect("is there")
                .points
        };
        assert_eq!(named("training"), &[(1.0, 4.0), (2.0, 2.0)]);
        assert_eq!(named("training, mean"), &[(1.0, 4.0), (2.0, 3.0)]);
        assert_eq!(named("evaluation"), &[(0.0, 3.0)]);
        assert_eq!(named("evaluation, general"), &[(0.0, 2.0)]);
    }

    /// Steps 0 to 10 are at 55 to 745, values 1 to 3 at 345 to 55.
    #[test]
    fn points_are_where_their_numbers_are_and_bad_ones_are_left_out() {
        let curve = Curve {
            name: "a<b".into(),
            points: vec![(0.0, 1.0), (5.0, f64::NAN), (5.0, 2.0), (10.0, 3.0)],
        };
        let picture = svg("t", &[curve]);
        assert!(
            picture.contains("points=\"55.0,345.0 400.0,200.0 745.0,55.0\""),
            "{picture}"
        );
        assert!(picture.contains("a&lt;b"));
        assert!(!picture.contains("NaN"));
        assert!(!svg("nothing", &[]).contains("NaN"));
    }
}
