//! `README.md` of an adapter's folder, as hubs show it.

use serde_json::Value;

use crate::Method;

/// The card of an adapter.
pub(crate) fn model_card(method: &dyn Method) -> String {
    let base = method.common().base_model_name_or_path.as_deref();
    let front = base.map_or(String::new(), |base| {
        format!("base_model: {}\n", Value::from(base))
    });
    let tag = method.peft_type().to_ascii_lowercase();
    let settings: String = (method.own().iter())
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| format!("- `{name}`: {value}\n"))
        .collect();
    format!(
        "---\n{front}library_name: peft\ntags:\n- {tag}\n---\n\n# {} adapter\n\nTrained with ft. Load it with PEFT's \
         `PeftModel.from_pretrained(base, folder)`, or with `ft_peft::load_adapter`.\n\n## Settings\n\n{settings}",
        method.peft_type()
    )
}
