//! The same load on this backend and on its peers, one after the other in one call.

use anyhow::Result;

use super::{outcome::Outcome, peer::Peer, run::Tools, setting::Setting, subject::Subject};

/// A scenario that peers can be given too.
pub trait Comparable {
    /// What a subject came to.
    type Finding;

    /// Gives the load to a subject, and stops it.
    fn measure<S: Subject>(
        &self,
        subject: S,
        tools: &Tools,
        outcome: &mut Outcome,
    ) -> impl Future<Output = Result<Self::Finding>>;

    /// Puts this backend beside a peer.
    fn compare(&self, ours: &Self::Finding, theirs: &Self::Finding, outcome: &mut Outcome);
}

/// Measures each peer, and puts this backend beside it.
///
/// # Errors
/// If one does not start, or can't be asked.
pub async fn with_peers<P: Comparable>(
    plan: &P,
    peers: &[Peer],
    ours: &P::Finding,
    setting: &Setting,
    outcome: &mut Outcome,
) -> Result<()> {
    for peer in peers {
        let theirs = match peer {
            Peer::SocketIo => plan.measure(setting.socket_io().await?, &setting.tools, outcome).await?,
            Peer::Ejabberd => plan.measure(setting.ejabberd().await?, &setting.tools, outcome).await?,
        };
        plan.compare(ours, &theirs, outcome);
    }
    Ok(())
}
