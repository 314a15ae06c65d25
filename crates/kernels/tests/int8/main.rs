//! Products of bytes with every instruction for them, exactly as plain loops compute them.

mod column_conv;
mod filters;
mod maps;
mod products;
mod support;
