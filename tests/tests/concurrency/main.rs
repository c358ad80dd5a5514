//! What several processors do at once (rows L9 and M01 of the acceptance matrix). As the suite
//! `soak`, in two sizes.

mod counters;
mod kinds;

mod conversation;
mod inserts;
mod lab;
mod policies;
