//! Collects the answers to requests: equal requests once, cached ones from the cache, kind by kind.

use std::collections::HashMap;

use super::functions::Response;
use super::requests::{self, Arguments};
use super::response_cache::ResponseCache;
use super::task::Task;
use super::{Continuation, EvaluateOptions, GenerateUntil, LanguageModel};
use crate::random::mix_seed;
use crate::{Error, Result};

/// The requests of one document.
pub(super) struct Asked {
    pub(super) doc_id: usize,
    pub(super) arguments: Vec<Arguments>,
    /// For each request its repeats.
    pub(super) answers: Vec<Vec<Response>>,
}

/// Requests of one kind, each once, with their answers.
struct Batch<R> {
    requests: Vec<R>,
    answers: Vec<Option<Response>>,
    index: HashMap<String, usize>,
}

impl<R> Batch<R> {
    fn new() -> Self {
        Self {
            requests: Vec::new(),
            answers: Vec::new(),
            index: HashMap::new(),
        }
    }

    /// The place of a request with this key.
    fn add(&mut self, key: String, request: R) -> usize {
        let next = self.requests.len();
        let place = *self.index.entry(key).or_insert(next);
        if place == next {
            self.requests.push(request);
            self.answers.push(None);
        }
        place
    }

    /// Takes answers from the cache, and the rest from `run`.
    fn run(
        &mut self,
        cache: &mut Option<ResponseCache>,
        counter: &mut Counter<'_>,
        run: impl FnOnce(&[R], &mut dyn FnMut(usize, Response) -> Result<()>) -> Result<()>,
    ) -> Result<()>
    where
        R: Clone,
    {
        let mut keys = vec![String::new(); self.requests.len()];
        for (key, place) in &self.index {
            keys[*place].clone_from(key);
        }
        let mut open = Vec::new();
        for (place, key) in keys.iter().enumerate() {
            match cache.as_ref().and_then(|cache| cache.get(key)) {
                Some(answer) => {
                    self.answers[place] = Some(answer);
                    counter.add();
                }
                None => open.push(place),
            }
        }
        if open.is_empty() {
            return Ok(());
        }
        let requests: Vec<R> = open
            .iter()
            .map(|place| self.requests[*place].clone())
            .collect();
        let answers = &mut self.answers;
        run(&requests, &mut |index, answer| {
            let place = *open.get(index).ok_or_else(|| {
                Error::Model(format!(
                    "the model answered request {index} of {}",
                    open.len()
                ))
            })?;
            if let Some(cache) = cache.as_mut() {
                cache.put(&keys[place], &answer)?;
            }
            if answers[place].replace(answer).is_none() {
                counter.add();
            }
            Ok(())
        })?;
        match self
            .answers
            .iter()
            .filter(|answer| answer.is_none())
            .count()
        {
            0 => Ok(()),
            missing => Err(Error::Model(format!(
                "the model left {missing} requests without an answer"
            ))),
        }
    }

    fn answer(&self, place: usize) -> Result<Response> {
        self.answers[place]
            .clone()
            .ok_or_else(|| Error::Model("an answer is missing".to_string()))
    }
}

struct Counter<'a> {
    done: usize,
    total: usize,
    progress: &'a mut dyn FnMut(usize, usize),
}

impl Counter<'_> {
    fn add(&mut self) {
        self.done += 1;
        (self.progress)(self.done, self.total);
    }
}

/// The place of the answer to a request.
enum Place {
    Pair(usize),
    Text(usize),
    Generation(usize),
}

/// Collects the answers to all requests of all tasks, kind by kind, to equal ones once.
pub(super) fn answer(
    model: &dyn LanguageModel,
    tasks: &[Task],
    asked: &mut [Vec<Asked>],
    options: &EvaluateOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<()> {
    let mut pairs: Batch<Continuation> = Batch::new();
    let mut texts: Batch<String> = Batch::new();
    let mut generations: Batch<GenerateUntil> = Batch::new();
    // For every request of every document, the places of its repeats.
    let mut places: Vec<Vec<Place>> = Vec::new();
    for (task, docs) in tasks.iter().zip(asked.iter()) {
        for doc in docs {
            for arguments in &doc.arguments {
                let mut repeats = Vec::new();
                for repeat in 0..task.config.repeats {
                    repeats.push(match arguments {
                        Arguments::LogLikelihood(pair) => {
                            let key =
                                request_key("loglikelihood", &[&pair.context, &pair.continuation]);
                            Place::Pair(pairs.add(key, pair.clone()))
                        }
                        Arguments::Rolling(text) => {
                            let key = request_key("loglikelihood_rolling", &[text]);
                            Place::Text(texts.add(key, text.clone()))
                        }
                        Arguments::Generate { context, kwargs } => {
                            let seed = mix_seed(options.generation_seed, repeat as u64);
                            let request = requests::generate_until(context, kwargs, seed)
                                .map_err(|reason| task.error(reason))?;
                            let settings = format!(
                                "{:?} {} {} {} {} {}",
                                request.until,
                                request.max_gen_toks,
                                request.temperature,
                                request.top_p,
                                request.top_k,
                                request.seed
                            );
                            let key = request_key("generate_until", &[context, &settings]);
                            Place::Generation(generations.add(key, request))
                        }
                    });
                }
                places.push(repeats);
            }
        }
    }
    let mut cache = match &options.cache {
        Some(path) => Some(ResponseCache::open(path, &model.identity())?),
        None => None,
    };
    let total = pairs.requests.len() + texts.requests.len() + generations.requests.len();
    let mut counter = Counter {
        done: 0,
        total,
        progress,
    };
    (counter.progress)(0, total);
    pairs.run(&mut cache, &mut counter, |requests, done| {
        model.loglikelihood(requests, &mut |i, answer| {
            done(i, Response::LogLikelihood(answer))
        })
    })?;
    texts.run(&mut cache, &mut counter, |requests, done| {
        model.loglikelihood_rolling(requests, &mut |i, logp| done(i, Response::Rolling(logp)))
    })?;
    generations.run(&mut cache, &mut counter, |requests, done| {
        model.generate_until(requests, &mut |i, text| done(i, Response::Text(text)))
    })?;
    if let Some(cache) = cache {
        cache.close()?;
    }

    let mut places = places.into_iter();
    for doc in asked.iter_mut().flatten() {
        for _ in &doc.arguments {
            let repeats = places.next().unwrap_or_default();
            let answers = repeats.iter().map(|place| match place {
                Place::Pair(place) => pairs.answer(*place),
                Place::Text(place) => texts.answer(*place),
                Place::Generation(place) => generations.answer(*place),
            });
            doc.answers.push(answers.collect::<Result<_>>()?);
        }
    }
    Ok(())
}

/// A key that identifies a request: its kind and its arguments with their lengths.
fn request_key(kind: &str, arguments: &[&str]) -> String {
    let mut key = kind.to_string();
    for argument in arguments {
        key.push_str(&format!(" {}:{argument}", argument.len()));
    }
    key
}
