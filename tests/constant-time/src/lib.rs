//! That a guess of a token takes as many instructions however much of it is right: see `tests/instructions.rs`.
