//! Judges over servers that misbehave, over a real one where there is one, and over a model made of rules.

mod bias;
mod facts;
mod llama_server;
mod mock_server;
mod resume;
mod rules;
mod unreliable;
