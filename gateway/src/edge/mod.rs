//! The edge: who may connect, from where, how often and how slowly, before anything else looks at a request.

mod settings;

pub use settings::EdgeSettings;
