//! What a measurement found: the model that becomes JSON, a table for the terminal, and a page of plots.

mod charts;
mod html;
pub mod model;
mod number;
mod plot;
mod rows;
mod table;

pub use self::{
    html::page,
    model::{
        Aim, Comparison, Counters, Figure, Floors, Latency, Machine, ProcessCost, Proof, Report, Run, Second, Spread,
    },
    table::text,
};
