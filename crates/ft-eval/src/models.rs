//! Models of ft-core as a [`LanguageModel`](crate::harness::LanguageModel) and a
//! [`ChatModel`](crate::judges::ChatModel).
