//! Results one by one, of texts that come one by one.

use std::collections::VecDeque;

/// The results of texts in their order, each as soon as those of its portion are there. `run` is a pipeline, which gets up to `portion` texts
/// at a time: more are faster, fewer come sooner. Texts are taken from the iterator when they are needed. After an error there are no more
/// results.
///
/// ```no_run
/// use std::path::Path;
///
/// use burn::tensor::Device;
/// use ft_tasks::pipelines::{TextClassification, stream};
///
/// let classifier = TextClassification::from_pretrained(Path::new("my-classifier"), &Device::default())?;
/// let texts = (0..1_000_000).map(|i| format!("message {i}"));
/// let labels = stream(texts, 32, |texts| {
///     let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
///     classifier.classify(&texts, Some(1))
/// });
/// for labels in labels {
///     println!("{}", labels?[0].label);
/// }
/// # Ok::<(), ft_tasks::Error>(())
/// ```
///
/// # Panics
///
/// If `portion` is 0.
pub fn stream<T, R, E>(
    texts: impl IntoIterator<Item = T>,
    portion: usize,
    mut run: impl FnMut(&[T]) -> Result<Vec<R>, E>,
) -> impl Iterator<Item = Result<R, E>> {
    assert!(portion > 0, "portions of 0 texts");
    let mut texts = texts.into_iter().fuse();
    let mut ready: VecDeque<R> = VecDeque::new();
    let mut ended = false;
    std::iter::from_fn(move || {
        while ready.is_empty() && !ended {
            let next: Vec<T> = texts.by_ref().take(portion).collect();
            ended = next.is_empty();
            if !ended {
                match run(&next) {
                    Ok(results) => ready.extend(results),
                    Err(error) => {
                        ended = true;
                        return Some(Err(error));
                    }
                }
            }
        }
        ready.pop_front().map(Ok)
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_result_is_there_before_the_texts_of_the_next_portion_are_taken() {
        let taken = Cell::new(0);
        let texts = (0..7).inspect(|_| taken.set(taken.get() + 1));
        let run = |texts: &[i32]| -> Result<Vec<i32>, String> {
            match texts.contains(&6) {
                true => Err("six".to_string()),
                false => Ok(texts.iter().map(|text| 10 * text).collect()),
            }
        };
        let mut results = stream(texts, 2, run);
        assert_eq!((results.next(), taken.get()), (Some(Ok(0)), 2));
        assert_eq!((results.next(), taken.get()), (Some(Ok(10)), 2));
        assert_eq!((results.next(), taken.get()), (Some(Ok(20)), 4));
        let rest: Vec<_> = results.collect();
        assert_eq!(rest, [Ok(30), Ok(40), Ok(50), Err("six".to_string())]);
    }
}
