//! Policies: what the tables let pass is what the rules say, read one by one.

mod cases;
mod order;
mod reference;
mod upstream;
mod worlds;
