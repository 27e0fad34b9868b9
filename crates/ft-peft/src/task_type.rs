//! `task_type` of new adapters: which of PEFT's models `PeftModel.from_pretrained` makes.

use std::any::Any;

use ft_core::Parts;
use serde_json::Value;

use crate::vocabulary::Vocabulary;
use crate::{BottleneckConfig, Method};

/// The setting.
const TASK_TYPE: &str = "task_type";

/// Sets `task_type` where the settings have none. `CAUSAL_LM` is written without it; PEFT's model of that name fails on a base
/// that does not generate, so a model without a head gets null.
pub(crate) fn set_task(method: &mut dyn Method, model: &impl Parts) {
    let own: &dyn Any = &*method;
    // Its files are AdapterHub's.
    if own.is::<BottleneckConfig>() || method.common().extra.contains_key(TASK_TYPE) {
        return;
    }
    let task = match model.task_type() {
        Some(name) => Value::from(name),
        None if Vocabulary::of(model).predicts_tokens() => return,
        None => Value::Null,
    };
    let extra = &mut method.common_mut().extra;
    extra.insert(TASK_TYPE.into(), task);
}
