//! Seeds of sampled answers.

use std::collections::BTreeSet;
use std::sync::Mutex;

use ft_eval::harness::{
    Continuation, EvaluateOptions, GenerateUntil, LanguageModel, LogLikelihood, TaskIndex, evaluate,
};

/// Keeps the seeds of the requests.
#[derive(Default)]
struct Seeds(Mutex<Vec<u64>>);

impl LanguageModel for Seeds {
    fn identity(&self) -> String {
        "seeds".to_string()
    }

    fn loglikelihood(
        &self,
        _: &[Continuation],
        _: &mut dyn FnMut(usize, LogLikelihood) -> ft_eval::Result<()>,
    ) -> ft_eval::Result<()> {
        Ok(())
    }

    fn loglikelihood_rolling(
        &self,
        _: &[String],
        _: &mut dyn FnMut(usize, f64) -> ft_eval::Result<()>,
    ) -> ft_eval::Result<()> {
        Ok(())
    }

    fn generate_until(
        &self,
        requests: &[GenerateUntil],
        done: &mut dyn FnMut(usize, String) -> ft_eval::Result<()>,
    ) -> ft_eval::Result<()> {
        for (i, request) in requests.iter().enumerate() {
            self.0.lock().unwrap().push(request.seed);
            done(i, String::new())?;
        }
        Ok(())
    }

    fn apply_chat_template(&self, _: &[(String, String)], _: bool) -> ft_eval::Result<String> {
        Ok(String::new())
    }

    fn chat_template(&self) -> Option<String> {
        None
    }
}

/// The seeds of four repeats of one sampled question.
fn seeds(generation_seed: u64) -> Vec<u64> {
    let dir = tempfile::tempdir().unwrap();
    let yaml = "task: sampled\ntest_split: test\noutput_type: generate_until\ndoc_to_text: q\ndoc_to_target: q\n\
                repeats: 4\ngeneration_kwargs: {do_sample: true, temperature: 1.0}\n";
    std::fs::write(dir.path().join("sampled.yaml"), yaml).unwrap();
    std::fs::create_dir(dir.path().join("sampled")).unwrap();
    std::fs::write(dir.path().join("sampled/test.jsonl"), r#"{"q": "x"}"#).unwrap();
    let set = TaskIndex::new(&[dir.path()])
        .and_then(|index| index.load(&["sampled"], dir.path()))
        .unwrap();
    let options = EvaluateOptions {
        generation_seed,
        bootstrap_iters: 0,
        ..EvaluateOptions::default()
    };
    let model = Seeds::default();
    evaluate(&model, &set, &options, &mut |_, _| {}).unwrap();
    model.0.into_inner().unwrap()
}

#[test]
fn repeats_share_no_seed_with_those_of_the_next_seed() {
    let mut seen = BTreeSet::new();
    for seed in 0..8 {
        seen.extend(seeds(seed));
    }
    assert_eq!(seen.len(), 8 * 4);
    assert_eq!(seeds(3), seeds(3));
}

/// A model draws row `i` of a batch with a seed near that of the batch.
#[test]
fn repeats_have_no_neighbouring_seeds() {
    let mut seeds = seeds(1234);
    seeds.sort_unstable();
    let closest = seeds.windows(2).map(|pair| pair[1] - pair[0]).min();
    assert!(closest > Some(1 << 32), "{seeds:?}");
}
