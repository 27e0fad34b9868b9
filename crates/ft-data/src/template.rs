//! Chat templates for models that come without one, by the names and with the texts of LLaMA-Factory.
//!
//! A template that comes with a model is the one that it was trained with, and is to be preferred.

use ft_core::ChatTemplate;

use crate::{Error, Result};

/// The parts of a template. `{bos}`, `{eos}` and `{content}` stand for tokens and for a message's text.
struct Parts {
    name: &'static str,
    prefix: &'static str,
    system: &'static str,
    user: &'static str,
    /// Before an answer: the generation prompt.
    header: &'static str,
    assistant: &'static str,
    default_system: &'static str,
    /// Whether the system message is part of the first user message.
    system_in_user: bool,
}

/// ChatML; the others are described by what differs from it.
const CHATML: Parts = Parts {
    name: "chatml",
    prefix: "",
    system: "<|im_start|>system\n{content}<|im_end|>\n",
    user: "<|im_start|>user\n{content}<|im_end|>\n",
    header: "<|im_start|>assistant\n",
    assistant: "{content}<|im_end|>\n",
    default_system: "",
    system_in_user: false,
};

/// A template whose answers end in the end-of-text token.
const EOS: Parts = Parts {
    system: "{content}",
    header: "",
    assistant: "{content}{eos}",
    ..CHATML
};

const TEMPLATES: [Parts; 17] = [
    Parts {
        name: "alpaca",
        user: "### Instruction:\n{content}\n\n",
        header: "### Response:\n",
        assistant: "{content}{eos}\n\n",
        default_system: "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n",
        ..EOS
    },
    CHATML,
    Parts {
        name: "deepseek",
        prefix: "{bos}",
        system: "{content}\n\n",
        user: "User: {content}\n\n",
        header: "Assistant:",
        ..EOS
    },
    Parts {
        name: "default",
        system: "System: {content}{eos}\n",
        user: "Human: {content}{eos}\n",
        header: "Assistant:",
        assistant: "{content}{eos}\n",
        ..EOS
    },
    Parts {
        name: "gemma",
        prefix: "{bos}",
        system: "{content}\n\n",
        user: "<start_of_turn>user\n{content}<end_of_turn>\n",
        header: "<start_of_turn>model\n",
        assistant: "{content}<end_of_turn>\n",
        system_in_user: true,
        ..CHATML
    },
    Parts {
        name: "granite3",
        system: "<|start_of_role|>system<|end_of_role|>{content}<|end_of_text|>\n",
        user: "<|start_of_role|>user<|end_of_role|>{content}<|end_of_text|>\n",
        header: "<|start_of_role|>assistant<|end_of_role|>",
        assistant: "{content}<|end_of_text|>\n",
        ..CHATML
    },
    Parts {
        name: "llama2",
        system: "<<SYS>>\n{content}\n<</SYS>>\n\n",
        user: "{bos}[INST] {content} [/INST]",
        system_in_user: true,
        ..EOS
    },
    Parts {
        name: "llama3",
        prefix: "{bos}",
        system: "<|start_header_id|>system<|end_header_id|>\n\n{content}<|eot_id|>",
        user: "<|start_header_id|>user<|end_header_id|>\n\n{content}<|eot_id|>",
        header: "<|start_header_id|>assistant<|end_header_id|>\n\n",
        assistant: "{content}<|eot_id|>",
        ..CHATML
    },
    Parts {
        name: "mistral",
        prefix: "{bos}",
        system: "{content}\n\n",
        user: "[INST] {content}[/INST]",
        assistant: " {content}{eos}",
        system_in_user: true,
        ..EOS
    },
    Parts {
        name: "openchat",
        prefix: "{bos}",
        user: "GPT4 Correct User: {content}{eos}",
        header: "GPT4 Correct Assistant:",
        ..EOS
    },
    Parts {
        name: "phi",
        system: "<|system|>\n{content}<|end|>\n",
        user: "<|user|>\n{content}<|end|>\n",
        header: "<|assistant|>\n",
        assistant: "{content}<|end|>\n",
        ..CHATML
    },
    Parts {
        name: "phi4",
        system: "<|im_start|>system<|im_sep|>{content}<|im_end|>",
        user: "<|im_start|>user<|im_sep|>{content}<|im_end|>",
        header: "<|im_start|>assistant<|im_sep|>",
        assistant: "{content}<|im_end|>",
        ..CHATML
    },
    Parts {
        name: "qwen",
        default_system: "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
        ..CHATML
    },
    Parts {
        name: "smollm",
        ..CHATML
    },
    Parts {
        name: "vicuna",
        user: "USER: {content} ",
        header: "ASSISTANT:",
        default_system: "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's questions.",
        ..EOS
    },
    Parts {
        name: "yi",
        ..CHATML
    },
    Parts {
        name: "zephyr",
        system: "<|system|>\n{content}{eos}",
        user: "<|user|>\n{content}{eos}",
        header: "<|assistant|>\n",
        default_system: "You are Zephyr, a helpful assistant.",
        ..EOS
    },
];

/// A chat template by LLaMA-Factory's name: alpaca, chatml, deepseek, default, gemma, granite3, llama2, llama3, mistral, openchat, phi,
/// phi4, qwen, smollm, vicuna, yi or zephyr.
///
/// Messages are the system's, if there is one, the user's and the assistant's. Tools, calls of tools and their results are an error,
/// and so are messages whose content is not a text. Where the system's text is part of the first message of the user (gemma, llama2,
/// mistral), that message must be the first.
///
/// ```
/// use ft_core::{ChatOptions, Message};
///
/// let template = ft_data::built_in_template("chatml")?;
/// let options = ChatOptions { add_generation_prompt: true, ..ChatOptions::default() };
/// let text = template.render(&[Message::new("user", "Hi")], &[], &options)?;
/// assert_eq!(text, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// If there is no such template.
pub fn built_in_template(name: &str) -> Result<ChatTemplate> {
    let parts = TEMPLATES
        .iter()
        .find(|parts| parts.name == name)
        .ok_or_else(|| {
            let names: Vec<&str> = TEMPLATES.iter().map(|parts| parts.name).collect();
            Error::Settings(format!(
                "there is no template `{name}`: choose one of {}",
                names.join(", ")
            ))
        })?;
    Ok(ChatTemplate::new(&jinja(parts))?)
}

fn jinja(parts: &Parts) -> String {
    let system = expression(parts.system, "system");
    let (before, user) = match parts.system_in_user {
        false => (
            format!("{{% if system %}}{{{{ {system} }}}}{{% endif %}}"),
            expression(parts.user, "message['content']"),
        ),
        true => {
            let content =
                format!("(({system}) if loop.first and system else '') ~ message['content']");
            let refused = refuse(
                "this template has the text of the system in the first message of the user, which must follow it",
            );
            (
                format!(
                    "{{% if system and (not turns or turns[0]['role'] != 'user') %}}{refused}{{% endif %}}"
                ),
                expression(parts.user, &content),
            )
        }
    };
    let no_tools = refuse(
        "this template has no place for functions: remove them, or take a template that has one",
    );
    let no_text =
        refuse("this template has a place for text only: the content of a message must be a text");
    format!(
        "{{% if tools %}}{no_tools}{{% endif %}}{{% for message in messages %}}{{% if message['tool_calls'] %}}{no_tools}\
         {{% elif message['content'] is not string %}}{no_text}{{% endif %}}{{% endfor %}}\
         {{{{ {prefix} }}}}{{% if messages[0]['role'] == 'system' %}}{{% set system = messages[0]['content'] %}}\
         {{% set turns = messages[1:] %}}{{% else %}}{{% set system = {default} %}}{{% set turns = messages %}}{{% endif %}}\
         {before}{{% for message in turns %}}{{% if message['role'] == 'user' %}}{{{{ {user} }}}}\
         {{% elif message['role'] == 'assistant' %}}{{{{ {header} ~ {assistant} }}}}\
         {{% else %}}{{{{ raise_exception('this template has no place for a message of the role ' ~ message['role']) }}}}\
         {{% endif %}}{{% endfor %}}{{% if add_generation_prompt %}}{{{{ {header} }}}}{{% endif %}}",
        prefix = expression(parts.prefix, ""),
        default = expression(parts.default_system, ""),
        header = expression(parts.header, ""),
        assistant = expression(parts.assistant, "message['content']"),
    )
}

/// What ends the rendering with this message.
fn refuse(message: &str) -> String {
    format!("{{{{ raise_exception({}) }}}}", literal(message))
}

/// A text with tokens and content as an expression of Jinja.
fn expression(text: &str, content: &str) -> String {
    let mut terms = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let markers = [
            ("{bos}", "bos_token"),
            ("{eos}", "eos_token"),
            ("{content}", content),
        ];
        let first = markers
            .iter()
            .filter_map(|(marker, value)| Some((rest.find(marker)?, *marker, *value)));
        let Some((at, marker, value)) = first.min() else {
            terms.push(literal(rest));
            break;
        };
        if at > 0 {
            terms.push(literal(&rest[..at]));
        }
        terms.push(format!("({value})"));
        rest = &rest[at + marker.len()..];
    }
    match terms.is_empty() {
        true => "''".to_string(),
        false => terms.join(" ~ "),
    }
}

fn literal(text: &str) -> String {
    let escaped = text
        .replace('\\', "\\\\")
        .replace('\'', "\\'")
        .replace('\n', "\\n");
    format!("'{escaped}'")
}
