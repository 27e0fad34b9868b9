//! The mock model of `tests/golden/harness.py`: answers are derived from hashes of the requests.

use ft_eval::harness::{Continuation, GenerateUntil, LanguageModel, LogLikelihood};
use sha2::{Digest, Sha256};

const REPLIES: [&str; 17] = [
    "The answer is 7.\n#### 7",
    " So 3 + 4 = 7, 12 left.\n#### 1,234.5\n\nQuestion: next",
    "#### -3 and #### 5",
    "(B)",
    " The answer: C because",
    "Paris",
    "  paris. ",
    "",
    "I think it is Guilty of Romance",
    "A",
    "12",
    "yes\n\nno",
    "Été à Paris…",
    "$18.00",
    "the end</s>",
    "\u{663} apples",
    "It's the second one: B",
];

fn digest(parts: &[&str]) -> [u8; 32] {
    Sha256::digest(parts.join("\0").as_bytes()).into()
}

fn share(digest: &[u8; 32]) -> f64 {
    f64::from(u32::from_be_bytes([
        digest[0], digest[1], digest[2], digest[3],
    ])) / 4_294_967_296.0
}

/// The mock model of `harness.py`. It counts requests, and can fail after a number of them.
#[derive(Default)]
pub(crate) struct Mock {
    pub(crate) asked: std::cell::Cell<usize>,
    pub(crate) fail_after: Option<usize>,
}

impl Mock {
    fn count(&self) -> ft_eval::Result<()> {
        self.asked.set(self.asked.get() + 1);
        match self.fail_after {
            Some(limit) if self.asked.get() > limit => {
                Err(ft_eval::Error::Model("cut off".to_string()))
            }
            _ => Ok(()),
        }
    }
}

impl LanguageModel for Mock {
    fn identity(&self) -> String {
        "mock".to_string()
    }

    fn loglikelihood(
        &self,
        requests: &[Continuation],
        done: &mut dyn FnMut(usize, LogLikelihood) -> ft_eval::Result<()>,
    ) -> ft_eval::Result<()> {
        // Answers may arrive in any order.
        for (i, request) in requests.iter().enumerate().rev() {
            self.count()?;
            let d = digest(&["pair", &request.context, &request.continuation]);
            let u = if d[5] % 2 == 1 {
                share(&d)
            } else {
                (share(&d) * 4.0).floor() / 4.0
            };
            done(
                i,
                LogLikelihood {
                    logp: -8.0 * u - 0.5,
                    is_greedy: d[4].is_multiple_of(2),
                },
            )?;
        }
        Ok(())
    }

    fn loglikelihood_rolling(
        &self,
        texts: &[String],
        done: &mut dyn FnMut(usize, f64) -> ft_eval::Result<()>,
    ) -> ft_eval::Result<()> {
        for (i, text) in texts.iter().enumerate() {
            self.count()?;
            done(
                i,
                -(text.len() as f64) * (0.5 + share(&digest(&["text", text]))),
            )?;
        }
        Ok(())
    }

    fn generate_until(
        &self,
        requests: &[GenerateUntil],
        done: &mut dyn FnMut(usize, String) -> ft_eval::Result<()>,
    ) -> ft_eval::Result<()> {
        for (i, request) in requests.iter().enumerate() {
            self.count()?;
            let mut reply =
                REPLIES[digest(&["text", &request.context])[0] as usize % REPLIES.len()];
            // The question contains the reply.
            if let Some((_, said)) = request.context.rsplit_once('\u{27e6}') {
                reply = said.split('\u{27e7}').next().unwrap_or("");
            }
            for stop in &request.until {
                reply = reply.split(stop.as_str()).next().unwrap_or("");
            }
            done(i, reply.to_string())?;
        }
        Ok(())
    }

    fn apply_chat_template(
        &self,
        messages: &[(String, String)],
        add_generation_prompt: bool,
    ) -> ft_eval::Result<String> {
        let parts: Vec<String> = messages
            .iter()
            .map(|(role, content)| format!("<|{role}|>{content}"))
            .collect();
        let end = if add_generation_prompt {
            "</s><|assistant|>"
        } else {
            ""
        };
        Ok(parts.join("</s>") + end)
    }

    fn chat_template(&self) -> Option<String> {
        Some("mock template".to_string())
    }
}
