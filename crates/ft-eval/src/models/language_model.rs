//! `LanguageModel` for a local model.

use ft_core::{CausalLm, Error as CoreError, Message};

use super::encoding::{encode, encode_pair, prefix_token};
use super::rolling::windows;
use super::scoring::Pair;
use super::{LocalModel, of_core};
use crate::Result;
use crate::harness::{Continuation, GenerateUntil, LanguageModel, LogLikelihood};
use crate::text::python_characters::is_space;

impl<M: CausalLm> LanguageModel for LocalModel<M> {
    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn loglikelihood(
        &self,
        requests: &[Continuation],
        done: &mut dyn FnMut(usize, LogLikelihood) -> Result<()>,
    ) -> Result<()> {
        let mut pairs = Vec::with_capacity(requests.len());
        for request in requests {
            let (context, continuation) =
                encode_pair(&self.tokenizer, &request.context, &request.continuation)?;
            pairs.push(Pair {
                context,
                continuation,
            });
        }
        self.score(pairs, done)
    }

    fn loglikelihood_rolling(
        &self,
        texts: &[String],
        done: &mut dyn FnMut(usize, f64) -> Result<()>,
    ) -> Result<()> {
        let prefix = prefix_token(&self.tokenizer)?;
        // The text of each window; the number of missing windows of each text, and the sum of the others.
        let (mut pairs, mut text_of) = (Vec::new(), Vec::new());
        let mut open = vec![(0, 0.0); texts.len()];
        for (i, text) in texts.iter().enumerate() {
            let windows = windows(&encode(&self.tokenizer, text)?, prefix, self.max_length());
            open[i].0 = windows.len();
            text_of.resize(text_of.len() + windows.len(), i);
            pairs.extend(windows);
            if open[i].0 == 0 {
                done(i, 0.0)?;
            }
        }
        self.score(pairs, &mut |window, score| {
            let text = text_of[window];
            let (missing, logp) = &mut open[text];
            *missing -= 1;
            *logp += score.logp;
            if *missing == 0 {
                done(text, *logp)?;
            }
            Ok(())
        })
    }

    fn generate_until(
        &self,
        requests: &[GenerateUntil],
        done: &mut dyn FnMut(usize, String) -> Result<()>,
    ) -> Result<()> {
        self.generate(requests, done)
    }

    /// If the template refuses the conversation, it is rendered again without the system message.
    fn apply_chat_template(
        &self,
        messages: &[(String, String)],
        add_generation_prompt: bool,
    ) -> Result<String> {
        let render = |messages: &[(String, String)]| {
            if add_generation_prompt {
                self.render(messages, true)
            } else {
                self.render_open(messages)
            }
        };
        match render(messages) {
            Err(CoreError::ChatTemplate(reason)) => {
                let rest = messages.iter().filter(|(role, _)| role != "system");
                let rest: Vec<(String, String)> = rest.cloned().collect();
                if rest.len() == messages.len() {
                    return Err(of_core(CoreError::ChatTemplate(reason)));
                }
                render(&rest).map_err(of_core)
            }
            rendered => rendered.map_err(of_core),
        }
    }

    fn chat_template(&self) -> Option<String> {
        let template = self.tokenizer.chat_template()?;
        Some(template.source().to_string())
    }
}

/// Marks the end of the last message. No template contains it.
const END: &str = "END_OF_THE_LAST_MESSAGE ";

impl<M: CausalLm> LocalModel<M> {
    fn render(
        &self,
        messages: &[(String, String)],
        add_generation_prompt: bool,
    ) -> ft_core::Result<String> {
        let messages: Vec<Message> = (messages.iter())
            .map(|(role, content)| Message::new(role, content.as_str()))
            .collect();
        (self.tokenizer).apply_chat_template(&messages, None, add_generation_prompt)
    }

    /// The conversation up to the end of the last message, as `continue_final_message` of transformers 5.
    fn render_open(&self, messages: &[(String, String)]) -> ft_core::Result<String> {
        let mut marked = messages.to_vec();
        if let Some((_, content)) = marked.last_mut() {
            content.push_str(END);
        }
        let mut rendered = self.render(&marked, false)?;
        let Some(at) = rendered.rfind(END.trim_end()) else {
            return Err(CoreError::ChatTemplate(
                "the template leaves out the last message, which is to be continued".to_string(),
            ));
        };
        let kept = rendered[at..].starts_with(END);
        rendered.truncate(at);
        // A template that trims messages would have trimmed this one too.
        Ok(match kept {
            true => rendered,
            false => rendered.trim_end_matches(is_space).to_string(),
        })
    }
}
