//! Names and pictures, which belong to kaha-main-v3: who is shown what, how seldom it is asked, and what happens when it
//! can't be.

mod calls;
mod changes;
mod failures;
mod names;
mod search;
mod view;
