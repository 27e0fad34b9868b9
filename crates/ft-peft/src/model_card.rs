//! `README.md` of an adapter's folder, as hubs show it: the front matter of PEFT's cards, and the caller's text about data
//! and training.

use std::any::Any;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::{BottleneckConfig, Method};

/// The content of a model card beside the method and its settings. All of it is optional.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelCard {
    /// The hub id of the base model, if it is not `base_model_name_or_path` of the settings.
    pub base_model: Option<String>,
    /// Hub ids or names of the training data.
    pub datasets: Vec<String>,
    /// The licence, by its identifier: `apache-2.0`.
    pub license: Option<String>,
    /// The languages, by their codes: `en`.
    pub languages: Vec<String>,
    /// What the adapter is for, in a sentence or more.
    pub description: Option<String>,
    /// Settings of the training, in order: the learning rate, the number of steps.
    pub training: Map<String, Value>,
    /// Results, in order: the held-out loss.
    pub results: Map<String, Value>,
}

/// The end of a card that this crate wrote, which is written again with the adapter.
pub(crate) const WRITTEN: &str = "<!-- Written with the adapter, and again with the next one in this folder. Remove this line to keep the card. -->";

/// The front matter: the lines between `---` at the top. Strings of JSON are strings of YAML.
#[derive(Serialize)]
struct FrontMatter {
    #[serde(skip_serializing_if = "Option::is_none")]
    base_model: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    datasets: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    language: Vec<String>,
    library_name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    license: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pipeline_tag: Option<&'static str>,
    tags: Vec<String>,
}

impl ModelCard {
    /// The card of an adapter of this method.
    pub(crate) fn text(&self, method: &dyn Method) -> String {
        let own = method.common().base_model_name_or_path.clone();
        let base = self.base_model.clone().or(own);
        let name = method.peft_type();
        let mut card = format!(
            "---\n{}---\n\n# {name} adapter\n",
            self.front_matter(method, &base)
        );
        let mut paragraph = |text: String| card.push_str(&format!("\n{text}\n"));
        paragraph(match &base {
            Some(base) => format!("An adapter of the method {name} for `{base}`, trained with ft."),
            None => format!("An adapter of the method {name}, trained with ft."),
        });
        if let Some(description) = &self.description {
            paragraph(description.clone());
        }
        let library = match is_of_adapter_hub(method) {
            true => "AdapterHub's `model.load_adapter(folder)`",
            false => "PEFT's `PeftModel.from_pretrained(base, folder)`",
        };
        paragraph(format!(
            "Load it with {library}, or with `ft_peft::load_adapter`."
        ));
        if !self.datasets.is_empty() {
            let lines = self.datasets.iter().map(|name| format!("- {name}"));
            paragraph(format!(
                "## Training data\n\n{}",
                lines.collect::<Vec<_>>().join("\n")
            ));
        }
        let settings = method
            .own()
            .into_iter()
            .filter(|(_, value)| !value.is_null());
        for (title, values) in [
            ("Training", &self.training),
            ("Results", &self.results),
            ("Settings of the adapter", &settings.collect()),
        ] {
            if !values.is_empty() {
                let lines = values
                    .iter()
                    .map(|(name, value)| format!("- `{name}`: {value}"));
                paragraph(format!(
                    "## {title}\n\n{}",
                    lines.collect::<Vec<_>>().join("\n")
                ));
            }
        }
        card.push_str(&format!("\n{WRITTEN}\n"));
        card
    }

    fn front_matter(&self, method: &dyn Method, base: &Option<String>) -> String {
        // A hub rejects a local path as the base model.
        let base_model = base.clone().filter(|base| is_hub_id(base));
        let tag = base_model
            .iter()
            .map(|base| format!("base_model:adapter:{base}"));
        let tags = tag.chain([method.peft_type().to_ascii_lowercase(), "ft".to_string()]);
        let task = method.common().extra.get("task_type");
        let generates = task.is_none_or(|task| task == "CAUSAL_LM");
        let front = FrontMatter {
            datasets: self
                .datasets
                .iter()
                .filter(|name| is_hub_id(name))
                .cloned()
                .collect(),
            language: self.languages.clone(),
            library_name: match is_of_adapter_hub(method) {
                true => "adapters",
                false => "peft",
            },
            license: self.license.clone(),
            pipeline_tag: generates.then_some("text-generation"),
            tags: tags.collect(),
            base_model,
        };
        yaml(&front)
    }
}

/// Whether the files are those of AdapterHub.
fn is_of_adapter_hub(method: &dyn Method) -> bool {
    (method as &dyn Any).is::<BottleneckConfig>()
}

/// Whether a name is one that a hub can have: `name` or `owner/name`.
fn is_hub_id(name: &str) -> bool {
    let parts: Vec<&str> = name.split('/').collect();
    let plain = |part: &&str| {
        let first = part.starts_with(|c: char| c.is_ascii_alphanumeric());
        first
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    parts.len() <= 2 && parts.iter().all(plain)
}

/// Strings and lists of strings as YAML.
fn yaml(front: &FrontMatter) -> String {
    let Ok(Value::Object(front)) = serde_json::to_value(front) else {
        unreachable!("front matter is an object");
    };
    let lines = front.into_iter().map(|(name, value)| match value {
        Value::Array(items) => {
            let items = items.iter().map(|item| format!("- {item}\n"));
            format!("{name}:\n{}", items.collect::<String>())
        }
        value => format!("{name}: {value}\n"),
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::LoraConfig;

    fn config(base: &str) -> LoraConfig {
        let mut config = LoraConfig::default();
        config.common.base_model_name_or_path = Some(base.into());
        config
    }

    #[test]
    fn a_card_names_base_data_training_and_settings() {
        let card = ModelCard {
            datasets: vec!["tatsu-lab/alpaca".into(), "rows of my own".into()],
            license: Some("apache-2.0".into()),
            training: json!({"learning_rate": 2e-4, "steps": 100})
                .as_object()
                .cloned()
                .expect("an object"),
            ..ModelCard::default()
        };
        let text = card.text(&config("HuggingFaceTB/SmolLM2-135M"));
        let expected = "---\nbase_model: \"HuggingFaceTB/SmolLM2-135M\"\ndatasets:\n- \"tatsu-lab/alpaca\"\n\
            library_name: \"peft\"\nlicense: \"apache-2.0\"\npipeline_tag: \"text-generation\"\ntags:\n\
            - \"base_model:adapter:HuggingFaceTB/SmolLM2-135M\"\n- \"lora\"\n- \"ft\"\n---\n\n# LORA adapter\n";
        assert!(text.starts_with(expected), "{text}");
        for part in [
            "## Training data\n\n- tatsu-lab/alpaca\n- rows of my own\n",
            "## Training\n\n- `learning_rate`: 0.0002\n- `steps`: 100\n",
            "- `lora_alpha`: 8\n",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains("Results"));
    }

    #[test]
    fn paths_of_a_machine_are_not_in_the_front_matter() {
        for path in ["/data/model", "./model", "a/b/c", "org/"] {
            let text = ModelCard::default().text(&config(path));
            let (front, body) = text[4..].split_once("---").expect("front matter");
            assert!(
                !front.contains("base_model") && body.contains(path),
                "{text}"
            );
        }
    }
}
