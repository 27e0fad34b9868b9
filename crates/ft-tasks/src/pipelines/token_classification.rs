//! Labels of tokens, of words, and of groups of words.

use std::path::Path;

use burn::tensor::Device;
use ft_core::{Encoded, EncoderTokenClassifier, Truncation};
use ft_data::{TextInput, TextTokens};
use serde::Serialize;

use super::{Characters, encode, input_of};
use crate::forward::{argmax, softmax};
use crate::{Error, Result, token_scores};

/// How tokens become entities: transformers' `aggregation_strategy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aggregation {
    /// Every token is one.
    #[default]
    None,
    /// Tokens of one type that follow each other are one, unless a label begins with `B-`.
    Simple,
    /// As `Simple` over words, which have the label of their first token.
    First,
    /// As `Simple` over words, whose scores are the means of those of their tokens.
    Average,
    /// As `Simple` over words, which have the label of the token with the highest score.
    Max,
}

impl std::str::FromStr for Aggregation {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            "none" => Self::None,
            "simple" => Self::Simple,
            "first" => Self::First,
            "average" => Self::Average,
            "max" => Self::Max,
            _ => {
                return Err(Error::Input(format!(
                    "there is no aggregation `{name}`: use none, simple, first, average or max"
                )));
            }
        })
    }
}

/// A token or a group of tokens with its label.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TokenEntity {
    /// The label of a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entity: Option<String>,
    /// The label of a group, without `B-` and `I-`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entity_group: Option<String>,
    /// The probability, of a group the mean of its members'.
    pub score: f32,
    /// The number of the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
    /// The token, or the tokens as the tokenizer joins them.
    pub word: String,
    /// The first character.
    pub start: usize,
    /// The character after the last one.
    pub end: usize,
}

/// A token, or a word of several.
struct Piece {
    word: String,
    scores: Vec<f32>,
    start: usize,
    end: usize,
    index: usize,
    continues: bool,
}

/// A token or a word with the label that was chosen.
struct Labelled {
    label: usize,
    score: f32,
    word: String,
    start: usize,
    end: usize,
    index: usize,
}

/// Labels of tokens, by a tagger.
#[derive(Clone, Debug)]
pub struct TokenClassification {
    model: EncoderTokenClassifier,
    input: TextInput,
    aggregation: Aggregation,
    ignored: Vec<String>,
    truncated: bool,
    overlap: Option<usize>,
}

impl TokenClassification {
    /// Loads a folder of transformers' `*ForTokenClassification`.
    ///
    /// # Errors
    ///
    /// If a file is missing or malformed, or the weights do not fit.
    pub fn from_pretrained(folder: &Path, device: &Device) -> Result<Self> {
        let model = EncoderTokenClassifier::from_pretrained(folder, device)?;
        let dims = model.dims();
        let input = input_of(folder, dims.vocab_size, dims.max_position_embeddings)?;
        Ok(Self::new(model, input))
    }

    /// This model with this input.
    pub fn new(model: EncoderTokenClassifier, input: TextInput) -> Self {
        Self {
            model,
            input,
            aggregation: Aggregation::None,
            ignored: vec!["O".into()],
            truncated: false,
            overlap: None,
        }
    }

    /// Groups tokens.
    #[must_use]
    pub fn aggregated(self, aggregation: Aggregation) -> Self {
        Self {
            aggregation,
            ..self
        }
    }

    /// Leaves out entities of these labels; `O` without this.
    #[must_use]
    pub fn ignoring(self, labels: &[&str]) -> Self {
        Self {
            ignored: labels.iter().map(|label| label.to_string()).collect(),
            ..self
        }
    }

    /// Cuts texts that are too long, as transformers does. Without it they are an error.
    #[must_use]
    pub fn truncated(self) -> Self {
        Self {
            truncated: true,
            ..self
        }
    }

    /// Reads long texts in windows that overlap by so many tokens, half a window at most. Tokens must be grouped. Of entities that
    /// overlap the longer one is kept, of equally long ones that with the higher score.
    #[must_use]
    pub fn in_windows(self, overlap: usize) -> Self {
        Self {
            overlap: Some(overlap),
            ..self
        }
    }

    /// The entities of texts.
    ///
    /// # Errors
    ///
    /// If a text is too long or cannot be tokenized, there are windows but no groups, or a score is not finite.
    pub fn tag(&self, texts: &[&str]) -> Result<Vec<Vec<TokenEntity>>> {
        if self.overlap.is_some() && self.aggregation == Aggregation::None {
            return Err(Error::Input(
                "windows need groups of tokens: choose another aggregation than none".into(),
            ));
        }
        let cut = self.truncated.then_some(Truncation::OnlyFirst);
        let mut windows: Vec<(usize, Encoded)> = Vec::new();
        for (number, text) in texts.iter().enumerate() {
            let own = match self.overlap {
                None => vec![encode(&self.input, text, None, cut)?],
                Some(overlap) => {
                    let length = self.input.max_length();
                    let tokenizer = self.input.tokenizer();
                    tokenizer.encode_windows(text, None, length, overlap.min(length / 2))?
                }
            };
            windows.extend(own.into_iter().map(|window| (number, window)));
        }
        let tokens = windows.iter();
        let tokens: Vec<TextTokens> = tokens.map(|(_, own)| self.input.tokens(own)).collect();
        let scores = token_scores(&self.model, &tokens, self.input.padding())?;
        let mut all = vec![Vec::new(); texts.len()];
        let mut count = vec![0; texts.len()];
        for ((number, encoded), scores) in windows.iter().zip(scores) {
            let found = self.entities(texts[*number], encoded, scores)?;
            all[*number].extend(found);
            count[*number] += 1;
        }
        for (entities, count) in all.iter_mut().zip(count) {
            if count > 1 {
                *entities = without_overlaps(std::mem::take(entities));
            }
        }
        Ok(all)
    }

    fn entities(
        &self,
        text: &str,
        encoded: &Encoded,
        scores: Vec<Vec<f32>>,
    ) -> Result<Vec<TokenEntity>> {
        let pieces = self.pieces(text, encoded, scores);
        let labelled = match self.aggregation {
            Aggregation::None | Aggregation::Simple => pieces.iter().map(labelled).collect(),
            _ => self.words(&pieces)?,
        };
        let labels = &self.model.config().labels;
        let found = match self.aggregation {
            Aggregation::None => (labelled.into_iter())
                .map(|own| TokenEntity {
                    entity: Some(labels[own.label].clone()),
                    entity_group: None,
                    score: own.score,
                    index: Some(own.index),
                    word: own.word,
                    start: own.start,
                    end: own.end,
                })
                .collect(),
            _ => self.groups(&labelled)?,
        };
        let ignored = |entity: &TokenEntity| {
            let label = entity.entity.as_ref().or(entity.entity_group.as_ref());
            label.is_some_and(|label| self.ignored.contains(label))
        };
        Ok(found.into_iter().filter(|own| !ignored(own)).collect())
    }

    fn pieces(&self, text: &str, encoded: &Encoded, scores: Vec<Vec<f32>>) -> Vec<Piece> {
        let tokenizer = self.input.tokenizer();
        let characters = Characters::new(text);
        let marked = tokenizer.continuing_subword_prefix().is_some();
        let mut pieces = Vec::new();
        for (index, mut scores) in scores.into_iter().enumerate() {
            if encoded.sequence[index].is_none() {
                continue;
            }
            let (start, end) = encoded.offsets[index];
            let own = text.get(start..end).unwrap_or("");
            let mut word = tokenizer
                .id_to_token(encoded.ids[index])
                .unwrap_or_default();
            let mut continues = match marked {
                true => word.chars().count() != own.chars().count(),
                // Tokenizers that mark the beginnings of words: a token continues one if there is no blank at its start.
                false => {
                    let before = text.get(..start).and_then(|before| before.chars().last());
                    let here = text.get(start..).is_some_and(|rest| rest.starts_with(' '));
                    let blank = here || before == Some(' ');
                    start > 0 && !blank
                }
            };
            if Some(encoded.ids[index]) == tokenizer.unk_token_id() {
                word = own.to_string();
                continues = false;
            }
            softmax(&mut scores);
            pieces.push(Piece {
                word,
                scores,
                start: characters.of(start),
                end: characters.of(end),
                index,
                continues,
            });
        }
        pieces
    }

    /// Words with one label each.
    fn words(&self, pieces: &[Piece]) -> Result<Vec<Labelled>> {
        let mut words = Vec::new();
        let mut start = 0;
        for end in 1..=pieces.len() {
            if end < pieces.len() && pieces[end].continues {
                continue;
            }
            let word = &pieces[start..end];
            start = end;
            let scores: Vec<f32> = match self.aggregation {
                Aggregation::First => word[0].scores.clone(),
                Aggregation::Max => {
                    let highest = |piece: &Piece| piece.scores[argmax(&piece.scores)];
                    let highest: Vec<f32> = word.iter().map(highest).collect();
                    word[argmax(&highest)].scores.clone()
                }
                _ => {
                    let mut mean = vec![0.0; word[0].scores.len()];
                    for piece in word {
                        let scores = mean.iter_mut().zip(&piece.scores);
                        scores.for_each(|(mean, score)| *mean += score / word.len() as f32);
                    }
                    mean
                }
            };
            let label = argmax(&scores);
            let tokens = word.iter().map(|piece| piece.word.clone()).collect();
            words.push(Labelled {
                label,
                score: scores[label],
                word: self.input.tokenizer().tokens_to_text(tokens)?,
                start: word[0].start,
                end: word[word.len() - 1].end,
                index: word[0].index,
            });
        }
        Ok(words)
    }

    fn groups(&self, all: &[Labelled]) -> Result<Vec<TokenEntity>> {
        let labels = &self.model.config().labels;
        let kind = |own: &Labelled| match labels[own.label].split_at_checked(2) {
            Some(("B-", kind)) => (true, kind),
            Some(("I-", kind)) => (false, kind),
            _ => (false, labels[own.label].as_str()),
        };
        let mut groups = Vec::new();
        let mut start = 0;
        for end in 1..=all.len() {
            if end < all.len() {
                let (begins, own) = kind(&all[end]);
                if !begins && own == kind(&all[end - 1]).1 {
                    continue;
                }
            }
            let members = &all[start..end];
            start = end;
            let label = &labels[members[0].label];
            let name = label
                .split_once('-')
                .map_or(label.as_str(), |parts| parts.1);
            let tokens = members.iter().map(|own| own.word.clone()).collect();
            let sum: f32 = members.iter().map(|own| own.score).sum();
            groups.push(TokenEntity {
                entity: None,
                entity_group: Some(name.to_string()),
                score: sum / members.len() as f32,
                index: None,
                word: self.input.tokenizer().tokens_to_text(tokens)?,
                start: members[0].start,
                end: members[members.len() - 1].end,
            });
        }
        Ok(groups)
    }
}

fn labelled(piece: &Piece) -> Labelled {
    let label = argmax(&piece.scores);
    Labelled {
        label,
        score: piece.scores[label],
        word: piece.word.clone(),
        start: piece.start,
        end: piece.end,
        index: piece.index,
    }
}

/// Of entities that overlap the longer one, or that with the higher score.
fn without_overlaps(mut entities: Vec<TokenEntity>) -> Vec<TokenEntity> {
    entities.sort_by_key(|entity| entity.start);
    let mut kept: Vec<TokenEntity> = Vec::new();
    for entity in entities {
        match kept.last_mut() {
            Some(last) if entity.start >= last.start && entity.start < last.end => {
                let (own, other) = (entity.end - entity.start, last.end - last.start);
                if own > other || (own == other && entity.score > last.score) {
                    *last = entity;
                }
            }
            _ => kept.push(entity),
        }
    }
    kept
}
