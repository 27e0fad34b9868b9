//! The answers of one model, from which a stage's measures are computed.

use serde::{Deserialize, Serialize};

use super::fit::TextFit;
use super::{Stage, StageData};
use crate::Result;
use crate::harness::{GenerateUntil, LanguageModel};

/// The answers of one model to a stage's data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StageAnswers {
    /// The model's name in the report.
    pub model: String,
    /// The fit of each text of the domain.
    pub domain: Vec<TextFit>,
    /// The fit of each general text.
    pub general: Vec<TextFit>,
    /// The reply to each instruction.
    pub replies: Vec<String>,
    /// The reply to each harmful prompt.
    pub harmful_replies: Vec<String>,
}

impl StageAnswers {
    /// Collects the answers of a model: to texts for domain adaptation, to prompts for the other stages.
    ///
    /// Prompts are rendered with the model's chat template if it has one. Replies are greedy, with at most `max_new_tokens`
    /// tokens. `progress` receives the number of finished requests and the total.
    ///
    /// # Errors
    ///
    /// If the model fails.
    pub fn collect(
        stage: Stage,
        name: &str,
        model: &dyn LanguageModel,
        data: &StageData,
        max_new_tokens: usize,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let mut answers = Self {
            model: name.into(),
            ..Self::default()
        };
        let total = stage.questions(data);
        let mut answered = 0;
        let mut tick = || {
            answered += 1;
            progress(answered, total);
        };
        if stage == Stage::DomainAdaptation {
            answers.domain = fits(model, &data.domain, &mut tick)?;
            answers.general = fits(model, &data.general, &mut tick)?;
            return Ok(answers);
        }
        let prompts: Vec<&str> = data
            .instructions
            .iter()
            .map(|i| i.prompt.as_str())
            .collect();
        answers.replies = replies(model, &prompts, max_new_tokens, &mut tick)?;
        if stage == Stage::PreferenceAlignment {
            let prompts: Vec<&str> = data.harmful.iter().map(String::as_str).collect();
            answers.harmful_replies = replies(model, &prompts, max_new_tokens, &mut tick)?;
        }
        Ok(answers)
    }
}

fn fits(
    model: &dyn LanguageModel,
    texts: &[String],
    tick: &mut dyn FnMut(),
) -> Result<Vec<TextFit>> {
    let mut fits: Vec<TextFit> = texts.iter().map(|t| TextFit::new(t, f64::NAN)).collect();
    model.loglikelihood_rolling(texts, &mut |i, logp| {
        fits[i].logp = logp;
        tick();
        Ok(())
    })?;
    Ok(fits)
}

fn replies(
    model: &dyn LanguageModel,
    prompts: &[&str],
    max_new_tokens: usize,
    tick: &mut dyn FnMut(),
) -> Result<Vec<String>> {
    let template = model.chat_template().is_some();
    let requests = prompts
        .iter()
        .map(|&prompt| {
            let context = match template {
                true => model.apply_chat_template(&[("user".into(), prompt.into())], true)?,
                false => prompt.into(),
            };
            Ok(GenerateUntil {
                context,
                until: Vec::new(),
                max_gen_toks: max_new_tokens,
                temperature: 0.0,
                top_p: 1.0,
                top_k: 0,
                seed: 0,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let mut replies = vec![String::new(); prompts.len()];
    model.generate_until(&requests, &mut |i, reply| {
        replies[i] = reply;
        tick();
        Ok(())
    })?;
    Ok(replies)
}
