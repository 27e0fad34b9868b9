// A retrieval benchmark from documents: their pieces, and questions about them by a chat model.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use ft::core::{HubOptions, Tokenizer, fnv1a, resolve};
use ft::data::{Chunking, document_text, documents_in};
use ft::eval::judges::{
    CachedModel, ChatModel, OpenAiClient, Panel, QuestionWriter, ServerOptions, WrittenQuestions,
};
use ft::eval::models::LocalModel;

/// Where documents and questions come from.
#[derive(Args)]
pub(crate) struct DocumentArgs {
    /// A document, or a folder of documents: text and Markdown, and with --features documents HTML, DOCX and PDF.
    #[arg(long, conflicts_with_all = ["pairs", "corpus", "queries", "qrels"])]
    pub(crate) documents: Option<PathBuf>,
    /// Folder or hub id of a chat model that asks questions about the documents, and translates.
    #[arg(long, conflicts_with = "endpoint")]
    chat_local: Option<String>,
    /// Address of a server with OpenAI's protocol that does so.
    #[arg(long)]
    endpoint: Option<String>,
    /// The name of the server's model.
    #[arg(long, default_value = "default")]
    chat: String,
    /// Environment variable with the key of that server.
    #[arg(long)]
    api_key_env: Option<String>,
    /// How many requests the server answers at a time.
    #[arg(long, default_value_t = 4)]
    concurrency: usize,
    /// Tokens of a piece of a document.
    #[arg(long, default_value_t = 200)]
    chunk_tokens: usize,
    /// Folder or hub id of the tokenizer that counts them; without it that of the first of --models that is a folder.
    #[arg(long)]
    pub(crate) tokenizer: Option<String>,
    /// Questions about a piece.
    #[arg(long, default_value_t = 2)]
    questions: usize,
    /// Ask about so many pieces only, drawn by chance. All are searched.
    #[arg(long)]
    asked: Option<usize>,
}

/// Pieces of documents, and questions about them.
pub(crate) struct AskedDocuments {
    pub(crate) pieces: Vec<String>,
    pub(crate) found: WrittenQuestions,
}

impl DocumentArgs {
    /// The pieces of the documents, and questions about them. Replies are stored in `replies`, so that none is asked for twice.
    pub(crate) fn ask(
        &self,
        documents: &Path,
        tokenizer: &Tokenizer,
        replies: &Path,
        device: &str,
    ) -> Result<AskedDocuments> {
        let chunking = Chunking::Structure {
            max_tokens: self.chunk_tokens,
        };
        let (mut pieces, mut known) = (Vec::new(), HashSet::new());
        for path in documents_in(documents)? {
            for piece in chunking.chunks(&document_text(&path)?, tokenizer)? {
                // A piece that several documents have has one place.
                if known.insert(piece.clone()) {
                    pieces.push(piece);
                }
            }
        }
        let mut chosen: Vec<usize> = (0..pieces.len()).collect();
        chosen.sort_by_key(|&piece| fnv1a(pieces[piece].bytes()));
        chosen.truncate(self.asked.unwrap_or(usize::MAX));
        chosen.sort_unstable();
        let (model, concurrency) = self.model(device)?;
        let model = CachedModel::open(model, replies)?;
        let mut writer = QuestionWriter::new(&model);
        writer.per_text = self.questions;
        writer.panel = Panel {
            concurrency,
            ..writer.panel
        };
        let texts: Vec<&str> = chosen.iter().map(|&piece| pieces[piece].as_str()).collect();
        let mut found = writer.write(&texts, &mut |done, of| {
            if done.is_multiple_of(20) || done == of {
                eprintln!("asked about {done} of {of} pieces");
            }
        })?;
        for question in &mut found.questions {
            question.text = chosen[question.text];
        }
        for (piece, missing) in &mut found.missing {
            *piece = chosen[*piece];
            eprintln!("no question about piece {}: {}", *piece + 1, missing.reason);
        }
        Ok(AskedDocuments { pieces, found })
    }

    /// The chat model, and how many requests it answers at a time.
    pub(crate) fn model(&self, device: &str) -> Result<(Box<dyn ChatModel>, usize)> {
        if let Some(endpoint) = &self.endpoint {
            let options = ServerOptions {
                api_key_env: self.api_key_env.clone(),
                ..ServerOptions::default()
            };
            let client = OpenAiClient::new(endpoint, &self.chat, options)?;
            return Ok((Box::new(client), self.concurrency.max(1)));
        }
        let folder = self.chat_local.as_deref();
        let folder = folder
            .context("--documents and --translate need a chat model: --chat-local or --endpoint")?;
        let folder = resolve(folder, &HubOptions::from_env())?;
        let model = LocalModel::from_pretrained(&folder, &ft::device(device)?)?;
        Ok((Box::new(model), 1))
    }
}
