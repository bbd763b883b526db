//! One line at each decision, to whichever loggers are on.

/// `note!(warn, "…", values)`: to `defmt` and to `tracing`; nothing where neither is on.
macro_rules! note {
    ($level:ident, $($message:tt)+) => {{
        #[cfg(feature = "defmt")]
        ::defmt::$level!($($message)+);
        #[cfg(feature = "tracing")]
        ::tracing::$level!($($message)+);
        // Keeps the values used; without a logger the compiler drops this whole.
        let _ = ::core::format_args!($($message)+);
    }};
}
