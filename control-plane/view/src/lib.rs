//! Objects as their readers need them, and watch folding.
