//! The methods. Each is one file: its settings, its mathematics, its tensors.

use serde_json::Value;

use crate::Method;
use crate::adapter_config::{self, Writer};

/// The list of methods: a module and the type of its settings.
macro_rules! methods {
    ($($module:ident: $config:ident),* $(,)?) => {
        $(pub(crate) mod $module; pub use $module::$config;)*

        /// PEFT's names of all methods, and `BOTTLENECK`, which PEFT does not have.
        pub fn peft_types() -> Vec<&'static str> {
            vec![$($config::default().peft_type()),*]
        }

        /// Reads the settings of the method that `peft_type` names; the error names all mistakes.
        pub(crate) fn parse(json: &Value, writer: Writer) -> Result<Box<dyn Method>, String> {
            let name = json.get("peft_type").and_then(Value::as_str);
            let name = name.ok_or("peft_type is missing")?;
            $(
                if $config::default().peft_type() == name {
                    return adapter_config::parse::<$config>(json, writer).map(|config| Box::new(config) as _);
                }
            )*
            let known = peft_types().join(", ");
            Err(format!("peft_type {name:?} is not supported; there are: {known}"))
        }
    };
}

methods! {
    adalora: AdaLoraConfig,
    bitfit: BitFitConfig,
    boft: BoftConfig,
    bottleneck: BottleneckConfig,
    fourierft: FourierFtConfig,
    hra: HraConfig,
    ia3: Ia3Config,
    ln_tuning: LnTuningConfig,
    loha: LohaConfig,
    lokr: LokrConfig,
    lora: LoraConfig,
    miss: MissConfig,
    oft: OftConfig,
    p_tuning: PTuningConfig,
    prefix_tuning: PrefixTuningConfig,
    prompt_tuning: PromptTuningConfig,
    trainable_tokens: TrainableTokensConfig,
    vera: VeraConfig,
}

mod block_rotation;
mod inverse;

pub use bottleneck::InitBottleneck;
pub use lokr::InitLokrWeights;
pub use lora::{EvaConfig, InitLoraWeights, eva_initialise, into_plain_lora, lora_fa};
pub(crate) use lora::{precondition, preconditions, saved_as_plain};
pub use miss::InitMissWeights;
pub use p_tuning::EncoderType;
pub use prefix_tuning::InitPrefix;
pub use prompt_tuning::PromptTuningInit;
pub(crate) use trainable_tokens::TOKENS_DELTA;
