//! An endpoint, end to end: requests over real sockets to a scripted provider on this machine.

#[cfg(test)]
mod answers;
#[cfg(test)]
mod calls;
#[cfg(test)]
mod connections;
#[cfg(test)]
mod embeddings;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod provider;
#[cfg(test)]
mod requests;
#[cfg(test)]
mod speech;
