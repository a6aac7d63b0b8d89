//! Bad input, bad surroundings and the command line, with the real binary on the real kernel: an error names the
//! thing and the remedy, nothing panics, nothing acknowledged is lost, and what was good goes on working.

mod apply;
mod commands;
mod doctor;
mod explain;
mod host;
mod https;
mod killed;
mod life;
mod policies;
mod requests;
mod seeing;
mod stage;
mod store;
