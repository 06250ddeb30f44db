//! Limits on how often and how much at once.

mod lease;
mod window;

pub use lease::{LeaseSet, StreamsFull};
pub use window::{
    Decision, LimitCheck, RateStatus, SlidingWindow, Subject, Window, WindowPolicy, acquire_all, peek_all,
};
