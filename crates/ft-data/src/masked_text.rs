//! Texts with hidden tokens that a model is to predict (Devlin et al., 2018, arXiv:1810.04805), drawn anew in each epoch.

use ft_core::{IGNORE_INDEX, mix_seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::in_parallel::in_parallel;
use crate::{Batches, Error, Loader, Result, TextBatch, TextInput, TextLayout, TextTokens};

/// Which tokens are hidden, and how: transformers' `DataCollatorForLanguageModeling`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Masking {
    /// The probability that a token is to be predicted; special tokens never are.
    pub probability: f64,
    /// The share of these that the mask takes the place of.
    pub masked: f64,
    /// The share that a token of the whole vocabulary takes the place of. The rest stay as they are.
    pub random: f64,
    /// Whether all tokens of a word are hidden together, always behind masks. A word begins where no other token ends.
    pub whole_words: bool,
}

impl Default for Masking {
    fn default() -> Self {
        Self {
            probability: 0.15,
            masked: 0.8,
            random: 0.1,
            whole_words: false,
        }
    }
}

/// A text, and which of its tokens can be hidden.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Maskable {
    tokens: TextTokens,
    special: Vec<bool>,
    /// Whether a word begins here.
    begins: Vec<bool>,
}

/// Texts with masks, and what is behind them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaskedBatch {
    /// The texts.
    pub texts: TextBatch,
    /// The hidden id for each token of the batch, [`IGNORE_INDEX`] where it is not to be predicted.
    pub labels: Vec<i64>,
}

/// Batches of masked texts. Masks depend on the seed, the epoch and the batch only.
pub struct MaskedTexts {
    loader: Loader<Maskable, Vec<Maskable>>,
    masking: Masking,
    layout: TextLayout,
    mask: u32,
    vocab: usize,
    seed: u64,
}

impl MaskedTexts {
    /// Texts in windows of the longest input, without overlap, in batches of so many windows. With a shuffle seed their order is
    /// another one in each epoch. `vocab` is the number of ids that random tokens are drawn from.
    ///
    /// # Errors
    ///
    /// If the tokenizer has no mask, there are no texts, or a probability is none.
    pub fn new<T: AsRef<str> + Sync>(
        texts: &[T],
        input: &TextInput,
        vocab: usize,
        masking: Masking,
        layout: TextLayout,
        batch_size: usize,
        shuffle_seed: Option<u64>,
    ) -> Result<Self> {
        let Masking {
            probability,
            masked,
            random,
            ..
        } = masking;
        let shares = [probability, masked, random, masked + random];
        if probability == 0.0 || !shares.iter().all(|share| (0.0..=1.0).contains(share)) {
            return Err(Error::Settings(format!(
                "{probability}, {masked} and {random} are no probabilities of masking: the first is above 0, the others add up to \
                 1 at most"
            )));
        }
        let mask = input.tokenizer().mask_token_id().ok_or_else(|| {
            Error::Settings(
                "the tokenizer has no mask token: use one of a masked language model".into(),
            )
        })?;
        let windows = in_parallel(texts, |text| {
            let length = input.max_length();
            let windows = input
                .tokenizer()
                .encode_windows(text.as_ref(), None, length, 0)?;
            let windows = windows.into_iter().map(|encoded| Maskable {
                tokens: input.tokens(&encoded),
                special: encoded.sequence.iter().map(Option::is_none).collect(),
                begins: (0..encoded.len())
                    .map(|token| {
                        let before = token.checked_sub(1);
                        before.is_none_or(|before| {
                            encoded.sequence[before].is_none()
                                || encoded.offsets[before].1 != encoded.offsets[token].0
                        })
                    })
                    .collect(),
            });
            Ok(windows.collect::<Vec<_>>())
        })?;
        let windows: Vec<Maskable> = windows
            .into_iter()
            .flatten()
            .filter(|window| window.special.contains(&false))
            .collect();
        let clone = |rows: &[&Maskable]| rows.iter().map(|&row| row.clone()).collect();
        Ok(Self {
            loader: Loader::new(windows, batch_size, shuffle_seed, clone)?,
            masking,
            layout,
            mask,
            vocab,
            seed: shuffle_seed.unwrap_or(0),
        })
    }

    /// The number of windows.
    pub fn windows(&self) -> usize {
        self.loader.examples().len()
    }
}

impl Batches for MaskedTexts {
    type Batch = MaskedBatch;

    fn len(&self, epoch: usize) -> usize {
        self.loader.len(epoch)
    }

    fn batch(&self, epoch: usize, index: usize) -> MaskedBatch {
        let mut rows = self.loader.batch(epoch, index);
        let seed = mix_seed(mix_seed(self.seed, epoch as u64), index as u64);
        let mut rng = StdRng::seed_from_u64(seed);
        let hidden: Vec<Vec<i64>> = rows
            .iter_mut()
            .map(|row| self.masking.hide(row, self.mask, self.vocab, &mut rng))
            .collect();
        let texts: Vec<&TextTokens> = rows.iter().map(|row| &row.tokens).collect();
        let texts = self.layout.batch(&texts);
        let mut labels = vec![IGNORE_INDEX; texts.slots()];
        for (place, hidden) in texts.places().iter().zip(hidden) {
            labels[place.clone()].copy_from_slice(&hidden);
        }
        MaskedBatch { texts, labels }
    }
}

impl Masking {
    /// Hides tokens of a text and returns its labels.
    fn hide(&self, text: &mut Maskable, mask: u32, vocab: usize, rng: &mut StdRng) -> Vec<i64> {
        let mut chosen = false;
        let mut labels = vec![IGNORE_INDEX; text.special.len()];
        for (token, label) in labels.iter_mut().enumerate() {
            if text.special[token] {
                continue;
            }
            if !self.whole_words || text.begins[token] {
                chosen = rng.random_bool(self.probability);
            }
            if !chosen {
                continue;
            }
            let id = &mut text.tokens.ids[token];
            *label = i64::from(*id);
            let draw: f64 = rng.random();
            if self.whole_words || draw < self.masked {
                *id = mask;
            } else if draw < self.masked + self.random {
                *id = rng.random_range(0..vocab as u32);
            }
        }
        labels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(tokens: usize) -> Maskable {
        let special: Vec<bool> = (0..tokens).map(|i| i == 0 || i == tokens - 1).collect();
        Maskable {
            tokens: TextTokens {
                ids: (0..tokens).map(|i| 10 + (i % 7) as u32).collect(),
                ..TextTokens::default()
            },
            // Words of two tokens.
            begins: (0..tokens).map(|i| i % 2 == 1).collect(),
            special,
        }
    }

    /// 20,000 tokens: a share has a deviation of at most √(0.25/3000) = 0.009.
    #[test]
    fn a_share_of_the_tokens_is_hidden_and_most_of_these_by_masks() {
        let before = text(20_002);
        let mut after = before.clone();
        let mut rng = StdRng::seed_from_u64(1);
        let labels = Masking::default().hide(&mut after, 3, 1000, &mut rng);
        let chosen: Vec<usize> = (0..labels.len())
            .filter(|&token| labels[token] != IGNORE_INDEX)
            .collect();
        let share = |count: usize, of: usize| count as f64 / of as f64;
        assert!((share(chosen.len(), 20_000) - 0.15).abs() < 0.01);
        assert!(!chosen.contains(&0) && !chosen.contains(&20_001));
        let (old, new) = (&before.tokens.ids, &after.tokens.ids);
        let masks = chosen.iter().filter(|&&token| new[token] == 3).count();
        let same = chosen.iter().filter(|&&token| new[token] == old[token]);
        assert!((share(masks, chosen.len()) - 0.8).abs() < 0.04);
        assert!((share(same.count(), chosen.len()) - 0.1).abs() < 0.03);
        for token in 0..labels.len() {
            match labels[token] {
                IGNORE_INDEX => assert_eq!(new[token], old[token]),
                label => assert_eq!(label, i64::from(old[token])),
            }
        }
    }

    #[test]
    fn whole_words_are_hidden_behind_masks() {
        let mut after = text(2_002);
        let masking = Masking {
            whole_words: true,
            ..Masking::default()
        };
        let labels = masking.hide(&mut after, 3, 1000, &mut StdRng::seed_from_u64(2));
        for word in labels[1..2001].chunks_exact(2) {
            assert_eq!(word[0] == IGNORE_INDEX, word[1] == IGNORE_INDEX);
        }
        for (label, id) in labels.iter().zip(&after.tokens.ids) {
            assert_eq!(*label != IGNORE_INDEX, *id == 3);
        }
    }
}
