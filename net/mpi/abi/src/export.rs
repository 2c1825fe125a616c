//! How a function gets its two names: MPI's own, and the one with a `P` before it, by which tools
//! that stand in between call on.

/// Functions of the ABI. A body is safe code: what pointers point to is `memory.rs`'s affair.
macro_rules! export {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) -> $result:ty $body:block)*) => {$(
        // SAFETY: names of MPI's, which nobody else defines.
        #[unsafe(no_mangle)]
        #[allow(non_snake_case, missing_docs, clippy::too_many_arguments, reason = "the ABI's")]
        pub(crate) extern "C" fn $name($($arg: $type),*) -> $result $body

        const _: () = {
            // SAFETY: as above.
            #[unsafe(export_name = concat!("P", stringify!($name)))]
            #[allow(clippy::too_many_arguments, reason = "the ABI's")]
            extern "C" fn profiled($($arg: $type),*) -> $result {
                $name($($arg),*)
            }
        };
    )*};
}
pub(crate) use export;
