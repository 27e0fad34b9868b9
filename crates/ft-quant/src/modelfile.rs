//! A `Modelfile` for Ollama, beside a GGUF file: where the model is, how messages are put together, and what ends an answer.
//!
//! Ollama has templates of Go. One is made from what the chat template of the model renders: texts before and after the contents
//! of messages, which are compared between conversations. A template whose text depends on more than roles (tools, dates,
//! positions) cannot be written so. Then the file has none, and Ollama chooses by the chat template in the GGUF file.

use std::path::Path;

use ft_core::safetensors_folder::write_file;
use ft_core::{GenerationConfig, Message, Tokenizer};

use crate::Result;
use crate::calibrate::token_before_texts;

/// Writes `Modelfile` into the folder of a GGUF file, for `ollama create NAME -f Modelfile`.
///
/// # Errors
///
/// If the GGUF file cannot be read, or the file cannot be written.
pub fn write_modelfile(gguf: &Path, tokenizer: &Tokenizer) -> Result<()> {
    let ends = GenerationConfig::from_pretrained(gguf, Some(tokenizer))?.eos_token_ids;
    let stops: Vec<String> = (ends.iter())
        .filter_map(|id| tokenizer.id_to_token(*id))
        .collect();
    let name = gguf.file_name().unwrap_or_default().to_string_lossy();
    let text = modelfile(&name, go_template(tokenizer).as_deref(), &stops);
    Ok(write_file(
        &gguf.with_file_name("Modelfile"),
        text.as_bytes(),
    )?)
}

fn modelfile(name: &str, template: Option<&str>, stops: &[String]) -> String {
    let mut text = format!("FROM ./{name}\n");
    if let Some(template) = template {
        text.push_str(&format!("TEMPLATE \"\"\"{template}\"\"\"\n"));
    }
    for stop in stops.iter().filter(|stop| !stop.contains('"')) {
        text.push_str(&format!("PARAMETER stop \"{stop}\"\n"));
    }
    text
}

/// What is around the contents of messages.
struct Around {
    /// Before the first message without a system message.
    start: String,
    /// Before and after the content of a system message; none if the template refuses one.
    system: Option<[String; 2]>,
    /// Before the content of a user, and after it up to that of the assistant.
    user: [String; 2],
    /// After the content of the assistant.
    end: String,
}

/// The template of Go; none if the model has no chat template, or its text depends on more than roles.
fn go_template(tokenizer: &Tokenizer) -> Option<String> {
    let render = |messages: &[(&str, &str)]| {
        let messages = messages
            .iter()
            .map(|(role, text)| Message::new(*role, *text));
        let messages: Vec<_> = messages.collect();
        let asks = messages.last().is_some_and(|last| last.role == "user");
        tokenizer.apply_chat_template(&messages, None, asks).ok()
    };
    let around = Around::find(render, bos_of(tokenizer))?;
    // A longer conversation shows whether the parts say it all.
    let turns = [
        ("user", "one"),
        ("assistant", "two"),
        ("user", "three"),
        ("assistant", "four"),
        ("user", "five"),
    ];
    let mut conversations = vec![turns.to_vec()];
    if around.system.is_some() {
        conversations.push([("system", "zero")].into_iter().chain(turns).collect());
    }
    for messages in conversations {
        let rendered = render(&messages)?;
        let rendered = rendered
            .strip_prefix(bos_of(tokenizer))
            .unwrap_or(&rendered);
        if around.text(&messages) != rendered {
            return None;
        }
    }
    let template = around.template();
    let plain = around
        .pieces()
        .all(|piece| !piece.contains("{{") && !piece.contains("\"\"\""));
    plain.then_some(template)
}

/// The token that llama.cpp puts before a text by itself.
fn bos_of(tokenizer: &Tokenizer) -> &str {
    match token_before_texts(tokenizer) {
        Some(_) => tokenizer.bos_token().unwrap_or_default(),
        None => "",
    }
}

impl Around {
    fn find(render: impl Fn(&[(&str, &str)]) -> Option<String>, bos: &str) -> Option<Self> {
        let (s, u, a, v) = ("«system»", "«user»", "«answer»", "«again»");
        let plain = render(&[("user", u)])?;
        let (start, after) = plain.split_once(u)?;
        let long = render(&[("user", u), ("assistant", a), ("user", v)])?;
        let between = long.split_once(a)?.1.split_once(v)?.0.to_string();
        let start = start.strip_prefix(bos).unwrap_or(start);
        let with_system = render(&[("system", s), ("user", u)]);
        let with_system = with_system.as_deref().and_then(|text| text.split_once(s));
        let after_system = with_system.and_then(|(_, rest)| Some(rest.split_once(u)?.0));
        // What comes before a user's content everywhere.
        let mut before = common_end(&between, start);
        if let Some(rest) = after_system {
            before = common_end(before, rest);
        }
        let system = with_system.zip(after_system).map(|((first, _), rest)| {
            let first = first.strip_prefix(bos).unwrap_or(first);
            [first, &rest[..rest.len() - before.len()]].map(str::to_string)
        });
        Some(Self {
            start: start[..start.len() - before.len()].to_string(),
            system,
            user: [before.to_string(), after.to_string()],
            end: between[..between.len() - before.len()].to_string(),
        })
    }

    fn pieces(&self) -> impl Iterator<Item = &String> {
        let others = [&self.start, &self.end];
        self.system.iter().flatten().chain(&self.user).chain(others)
    }

    /// What the template gives.
    fn text(&self, messages: &[(&str, &str)]) -> String {
        let mut text = String::new();
        if messages.first().is_none_or(|(role, _)| *role != "system") {
            text.push_str(&self.start);
        }
        for (role, content) in messages {
            let [before, after] = match (*role, &self.system) {
                ("system", Some([before, after])) => [before.as_str(), after],
                ("user", _) => [self.user[0].as_str(), &self.user[1]],
                _ => ["", &self.end],
            };
            text.push_str(&format!("{before}{content}{after}"));
        }
        text
    }

    fn template(&self) -> String {
        let Self {
            start, user, end, ..
        } = self;
        let start = match &self.system {
            Some([before, after]) => {
                format!(
                    "{{{{ if .System }}}}{before}{{{{ .System }}}}{after}{{{{ else }}}}{start}{{{{ end }}}}"
                )
            }
            None => start.clone(),
        };
        let [before, after] = user;
        format!(
            "{start}{{{{ range .Messages }}}}{{{{ if eq .Role \"user\" }}}}{before}{{{{ .Content }}}}{after}\
             {{{{ else if eq .Role \"assistant\" }}}}{{{{ .Content }}}}{end}{{{{ end }}}}{{{{ end }}}}"
        )
    }
}

/// The longest end of both.
fn common_end<'a>(a: &'a str, b: &str) -> &'a str {
    let pairs = a.char_indices().rev().zip(b.chars().rev());
    let same = pairs.take_while(|((_, x), y)| x == y).last();
    same.map_or("", |((at, _), _)| &a[at..])
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn the_template_of_a_tokenizer_is_found() {
        let assets = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../assets/tiny-llama");
        let tokenizer = Tokenizer::from_pretrained(&assets).expect("loads");
        // It is compared with longer conversations, with and without a system message.
        assert!(go_template(&tokenizer).is_some());
    }

    #[test]
    fn a_template_has_the_texts_around_contents() {
        let render = |messages: &[(&str, &str)]| {
            let all = messages.iter();
            let mut text: String = all
                .map(|(role, content)| format!("<|im_start|>{role}\n{content}<|im_end|>\n"))
                .collect();
            if messages.last().is_some_and(|(role, _)| *role == "user") {
                text.push_str("<|im_start|>assistant\n");
            }
            Some(text)
        };
        let template = Around::find(render, "").expect("found").template();
        assert_eq!(
            template,
            "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ else }}{{ end }}{{ range .Messages }}\
             {{ if eq .Role \"user\" }}<|im_start|>user\n{{ .Content }}<|im_end|>\n<|im_start|>assistant\n\
             {{ else if eq .Role \"assistant\" }}{{ .Content }}<|im_end|>\n{{ end }}{{ end }}"
        );
        let text = modelfile("a.gguf", Some("T"), &["<|im_end|>".into()]);
        assert_eq!(
            text,
            "FROM ./a.gguf\nTEMPLATE \"\"\"T\"\"\"\nPARAMETER stop \"<|im_end|>\"\n"
        );
    }

    #[test]
    fn a_text_before_the_first_message_is_kept() {
        // As Llama 2 has it, with a default system text.
        let render = |messages: &[(&str, &str)]| {
            let mut text = "<s>".to_string();
            if messages[0].0 != "system" {
                text.push_str("SYS: be kind.\n");
            }
            for (role, content) in messages {
                text.push_str(&match *role {
                    "system" => format!("SYS: {content}\n"),
                    "user" => format!("USER: {content}\nAI: "),
                    _ => format!("{content}</s>"),
                });
            }
            Some(text)
        };
        let around = Around::find(render, "<s>").expect("found");
        assert_eq!(around.start, "SYS: be kind.\n");
        assert_eq!(around.user, ["USER: ", "\nAI: "]);
        assert_eq!(around.end, "</s>");
        let messages = [
            ("system", "a"),
            ("user", "b"),
            ("assistant", "c"),
            ("user", "d"),
        ];
        assert_eq!(
            format!("<s>{}", around.text(&messages)),
            render(&messages).expect("renders")
        );
    }
}
