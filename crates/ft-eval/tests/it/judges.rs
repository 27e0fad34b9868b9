//! Judges with faulty servers, with a real one if there is one, and with a model of rules.

mod bias;
mod facts;
mod llama_server;
mod mock_server;
mod resume;
mod rules;
mod unreliable;
