//! Limits on how often and how much at once.

mod apart;
mod capacity;
mod lease;
mod steady;
mod window;

pub use apart::{Opinion, Question, Step};
pub use capacity::{Capacity, CapacityFull, Places};
pub use lease::{LeaseSet, StreamsFull};
pub use steady::SteadyTime;
pub use window::{
    Decision, LimitCheck, RateStatus, SlidingWindow, Subject, Window, WindowPolicy, acquire_all, peek_all,
};
