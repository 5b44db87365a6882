//! The interface of the platform's other services, under /internal/v1, on a port of its own.
//!
//! **Invariant:** every request shows a service token, and each endpoint asks for its scope.

mod settings;

pub use settings::InternalSettings;
