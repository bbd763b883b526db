//! The Cargo features, a page each.
//!
//! Features only add. Each page has one shape: what it adds, what it needs, what it costs, an
//! example, what is not included. Those that bring a host's part are documented where that part
//! is: [`host`](crate::host). So is `capi`, in the module of that name.

#[cfg(feature = "alloc")]
pub mod alloc {
    #![doc = include_str!("../features/alloc.md")]
}

#[cfg(feature = "defmt")]
pub mod defmt {
    #![doc = include_str!("../features/defmt.md")]
}

#[cfg(feature = "tracing")]
pub mod tracing {
    #![doc = include_str!("../features/tracing.md")]
}
