//! Tuning of norms alone (Zhao et al., 2023, arXiv:2312.11420, section 2): a trained copy of each norm's weight and bias.

use ft_core::Part;
use serde::{Deserialize, Serialize};

use crate::adapter_config::json_settings;
use crate::copies::Copies;
use crate::method::{Draw, Method, NewAdapter, Site, method};
use crate::{Common, Result};

/// Settings of norm tuning (Zhao et al., 2023, arXiv:2312.11420).
///
/// Without `target_modules` all norms train. PEFT chooses fewer for some models, and none for encoders.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LnTuningConfig {
    /// What all methods have.
    #[serde(skip)]
    pub common: Common,
}

json_settings!(LnTuningConfig);

impl Method for LnTuningConfig {
    method!("LN_TUNING");

    fn keys(&self) -> &'static [&'static str] {
        &["target_modules", "exclude_modules", "modules_to_save"]
    }

    fn takes(&self, part: Part<'_>) -> bool {
        matches!(part, Part::RmsNorm(_) | Part::LayerNorm(_))
    }

    fn on(&self, site: &Site<'_>, _: &mut Draw<'_>) -> Result<NewAdapter> {
        let copies = Copies {
            weight: Some(WEIGHT),
            bias: Some(BIAS),
        };
        Ok(NewAdapter::new(copies, copies.tensors(site.part)))
    }
}

const WEIGHT: &str = "ln_tuning_layers.weight";
const BIAS: &str = "ln_tuning_layers.bias";
