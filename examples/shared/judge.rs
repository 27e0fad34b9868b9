// Options of a chat model that judges answers.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use clap::Args;
use ft::JudgeReward;
use ft::core::{HubOptions, resolve};
use ft::eval::judges::{
    CachedModel, ChatModel, OpenAiClient, Panel, PointJudge, Scale, ServerOptions,
};
use ft::eval::models::LocalModel;
use serde_json::{Value, json};

use crate::alignment::with_contents;

/// A chat model that judges, behind a server or in this process.
pub(crate) type Judge = Box<dyn ChatModel + Send>;

/// Which chat model judges, and by what.
#[derive(Args, Clone)]
pub(crate) struct JudgeOptions {
    /// Address of a judge, a server with OpenAI's protocol.
    #[arg(long, group = "a_judge")]
    judge_endpoint: Option<String>,
    /// Folder or hub id of a local judge.
    #[arg(long, group = "a_judge")]
    judge_local: Option<String>,
    /// The judge's name on the server.
    #[arg(long, default_value = "default", requires = "judge_endpoint")]
    judge_model: String,
    /// Environment variable with the server's key.
    #[arg(long, requires = "judge_endpoint")]
    api_key_env: Option<String>,
    /// Criteria for good answers: a text, or a file with it.
    #[arg(
        long,
        default_value = "The response does what the prompt asks for, correctly and completely.",
        requires = "a_judge"
    )]
    criteria: String,
}

impl JudgeOptions {
    /// Whether there is a judge.
    pub(crate) fn any(&self) -> bool {
        self.judge_endpoint.is_some() || self.judge_local.is_some()
    }

    /// The judge, if there is one.
    pub(crate) fn model(&self, device: &str) -> Result<Option<Judge>> {
        Ok(match (&self.judge_endpoint, &self.judge_local) {
            (None, None) => None,
            (Some(endpoint), _) => {
                let options = ServerOptions {
                    api_key_env: self.api_key_env.clone(),
                    ..ServerOptions::default()
                };
                let client = OpenAiClient::new(endpoint, &self.judge_model, options)?;
                Some(Box::new(client))
            }
            (None, Some(local)) => {
                let folder = resolve(local, &HubOptions::from_env())?;
                let model = LocalModel::from_pretrained(&folder, &ft::device(device)?)?;
                Some(Box::new(model))
            }
        })
    }

    /// A judge's verdicts from 1 to `points` as a reward. Replies are stored in a file.
    pub(crate) fn reward(
        &self,
        model: Judge,
        points: u32,
        replies: &Path,
    ) -> Result<JudgeReward<CachedModel<Judge>>> {
        ensure!(
            points >= 2,
            "--judge-points must be 2 or more: with one, all answers are equally good"
        );
        let judge = PointJudge {
            criteria: self.criteria()?,
            scale: Scale::Points(points),
            shots: Vec::new(),
        };
        let model = CachedModel::open(model, replies)?;
        Ok(JudgeReward::new(model, judge, Panel::default()))
    }

    /// The settings of requests to the judge.
    pub(crate) fn panel(&self) -> Panel {
        Panel {
            concurrency: if self.judge_local.is_some() { 1 } else { 4 },
            ..Panel::default()
        }
    }

    /// The criteria, which may be in a file.
    pub(crate) fn criteria(&self) -> Result<String> {
        match Path::new(&self.criteria).is_file() {
            true => std::fs::read_to_string(&self.criteria)
                .with_context(|| format!("cannot read {}", self.criteria)),
            false => Ok(self.criteria.clone()),
        }
    }

    /// What a resumed run must have in common with the one that it continues.
    pub(crate) fn identity(&self) -> Result<Value> {
        if !self.any() {
            return Ok(Value::Null);
        }
        let local = with_contents(self.judge_local.as_deref())?;
        let (endpoint, model) = (&self.judge_endpoint, &self.judge_model);
        Ok(json!([endpoint, model, local, self.criteria()?]))
    }
}
