//! What comes from outside, and is wrong in every way that a generator finds: nothing panics, nothing costs more than its
//! bytes allow, and nothing means two things. `PROPTEST_CASES` says how many cases of each test; 256 unless it is set.

mod commands;
mod depth;
mod envelopes;
mod facts;
mod mutation;
mod pushes;
mod values;
