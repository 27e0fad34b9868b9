//! The crates together: on the model that ships, on a real model where there is one, and through the
//! examples as a user runs them.

mod agreement;
mod bad_input;
mod examples;
mod real_model;
mod shipped_model;
mod trajectories;
