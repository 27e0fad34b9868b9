//! ft-peft
