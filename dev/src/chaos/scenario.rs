//! The scenarios: what each is called, what it breaks, and where it takes place.

use anyhow::Result;

use super::{disk, faults, ground::GroundKind, trial::Trial};

macro_rules! scenarios {
    ($($variant:ident $name:literal $ground:ident $fault:path, $about:literal;)*) => {
        /// Something to be broken.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Scenario {
            $(#[doc = $about] $variant,)*
        }

        impl Scenario {
            /// All of them, in the order in which they run.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// As it is called on the command line.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What happens in it.
            pub const fn about(self) -> &'static str {
                match self { $(Self::$variant => $about,)* }
            }

            /// What kind of fleet it needs.
            pub const fn ground(self) -> GroundKind {
                match self { $(Self::$variant => GroundKind::$ground,)* }
            }

            /// Breaks it, sees that it is felt, and heals it.
            pub async fn play(self, trial: &mut Trial<'_>) -> Result<()> {
                match self { $(Self::$variant => Box::pin($fault(trial)).await,)* }
            }
        }
    };
}

scenarios! {
    Kills "kills" Plain faults::services::killed,
        "every service is killed with SIGKILL at random, again and again; the notifier also with work in hand";
    CommitAck "commit-ack" Plain faults::commit::killed,
        "the persister is killed just before its commit, and between the commit and the acknowledgement";
    PostgresStopped "postgres-stopped" Plain faults::postgres::stopped,
        "PostgreSQL is stopped for a minute";
    PostgresCrashed "postgres-crashed" Plain faults::postgres::crashed,
        "PostgreSQL and all its backends are killed, several times";
    Restore "restore" Plain faults::restore::backups,
        "PostgreSQL is lost and restored from a backup that is older than what was acknowledged; then all servers are lost";
    RedisFlushed "redis-flushed" Plain faults::redis::flushed,
        "Redis loses all its keys";
    RedisKilled "redis-killed" Plain faults::redis::killed,
        "Redis is killed and comes back empty";
    RedisFull "redis-full" Plain faults::redis::full,
        "Redis has no memory left and refuses every write";
    RedisPaused "redis-paused" Plain faults::redis::paused,
        "Redis is frozen: its connections stay open and nobody answers";
    RedisOlder "redis-older" Plain faults::failovers::older,
        "Redis is killed and comes back with what it held a while before";
    RedisPromoted "redis-promoted" RedisLine faults::failovers::promoted,
        "Redis is killed, and a replica that lacks the last writes takes its place behind the same address";
    RedisReadonly "redis-readonly" RedisLine faults::failovers::read_only,
        "Redis becomes a replica of another server, to which its address leads from then on; connections stay open";
    RedisSilent "redis-silent" RedisLine faults::failovers::silent,
        "all connections to Redis take bytes, answer nothing, and stay open; new ones work";
    NatsKilled "nats-killed" Plain faults::nats::killed,
        "NATS, alone, is killed and started again";
    Storm "storm" Plain faults::clients::storm,
        "all connections of all clients are cut at once";
    SlowReaders "slow-readers" Plain faults::clients::slow_readers,
        "clients stop reading until gateways close them, and resume";
    HalfOpen "half-open" Plain faults::clients::half_open,
        "clients vanish without a word: their connections stay open and move no byte";
    GatewayGone "gateway-gone" Plain faults::departures::gateway_killed,
        "a gateway is killed, and those who were on it don't come back: others see them offline, and no longer writing";
    OutboxLeft "outbox-left" Plain faults::outbox::swept,
        "a gateway is killed between the commit of a change and its append to the log";
    PhoneGone "phone-gone" Plain faults::phones::vanished,
        "a phone vanishes without a word: it is notified once of what it doesn't get, and who is there is not";
    ProviderDown "provider-down" Plain faults::providers::down,
        "who brings notifications to devices is away for a minute, fails, or doesn't answer";
    NotifierKilled "notifier-killed" Plain faults::notifier::killed_while_sending,
        "the notifier is killed between sending a notification and recording that it did";
    QueueGone "queue-gone" Plain faults::queue::gone,
        "the queue of notifications is out of reach, and then its stream is deleted";
    Repeats "repeats" Plain faults::repeats::everything,
        "every message is sent again, and once more after the log has forgotten its id";
    Poison "poison" Plain faults::poison::events,
        "entries that nobody can read or store stand in the log";
    BadFrames "bad-frames" Plain faults::frames::senseless,
        "frames that no client should send, very many: senseless, malformed, oversized";
    HostileAccount "hostile-account" Plain faults::hostile::account,
        "one account uses all that its limits allow, beside strangers with unfinished requests: nothing is refused to others";
    Restarts "restarts" Plain faults::services::restarted,
        "every service and every server is restarted, twice";
    Frozen "frozen" Plain faults::services::frozen,
        "every service is frozen with SIGSTOP for a while, one after the other";
    Cluster "cluster" Cluster faults::cluster::leader_killed,
        "of three NATS servers the one that leads the log is killed, several times";
    LogFull "log-full" SmallLog faults::log::full,
        "the log is full until an operator gives it more room";
    NatsDiskFull "nats-disk-full" SmallDisk faults::nats::disk_full,
        "the disk of NATS is full: an operator gives it room and starts NATS again";
    FilesUsedUp "files-used-up" FewFiles faults::files::used_up,
        "strangers open more connections to gateways than these may open files";
    Agents "agents" Plain faults::agents::served,
        "agents of two businesses vanish while customers wait for them, and everything behind them is killed or emptied";
    Retire "retire" Plain faults::retire::aged_out,
        "days of messages age out while retention, PostgreSQL and readers get in the way";
    Replicas "replicas" Replica faults::replicas::broken,
        "a replica of PostgreSQL stops replaying, is killed, frozen and flaps: lists stay as fresh, and no request fails";
    Cold "cold" Cold faults::cold::moved,
        "old texts move to an object store that fails, while their worker is killed and messages come late";
    Clocks "clocks" Clocks faults::clocks::apart,
        "one gateway's clock is an hour ahead, and the gateway dies";
}

impl Scenario {
    /// Those that need a fleet of another kind come first, then those that take longest: the last ones that are played
    /// side by side are short, so that all rows end at about the same time.
    pub fn longest_first(chosen: &[Self]) -> Vec<Self> {
        let mut ordered = chosen.to_vec();
        ordered.sort_by_key(|scenario| (scenario.ground() == GroundKind::Plain, !scenario.is_long()));
        ordered
    }

    /// Whether it takes more than half a minute even when played shortly.
    const fn is_long(self) -> bool {
        matches!(
            self,
            Self::HalfOpen
                | Self::CommitAck
                | Self::Restarts
                | Self::Repeats
                | Self::Kills
                | Self::GatewayGone
                | Self::PhoneGone
                | Self::BadFrames
                | Self::Agents
                | Self::Retire
                | Self::Cold
                | Self::Restore
        )
    }

    /// Whether this user can play it.
    pub fn is_playable(self) -> bool {
        self.ground() != GroundKind::SmallDisk || disk::can_mount()
    }

    /// By its name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|scenario| scenario.name() == name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for scenario in Scenario::ALL {
            assert_eq!(Scenario::named(scenario.name()), Some(*scenario));
        }
        assert_eq!(Scenario::named("nothing"), None);
    }

    #[test]
    fn longest_first_keeps_every_scenario() {
        let ordered = Scenario::longest_first(Scenario::ALL);
        assert!(Scenario::ALL.iter().all(|scenario| ordered.contains(scenario)));
        assert_eq!(ordered.len(), Scenario::ALL.len());
        let is_plain = |scenario: &Scenario| scenario.ground() == GroundKind::Plain;
        let plain = ordered.iter().position(is_plain).unwrap();
        assert!(plain > 0 && ordered[plain..].iter().all(is_plain), "other fleets first: {ordered:?}");
        assert!(ordered[plain].is_long() && !ordered.last().unwrap().is_long(), "then the long ones: {ordered:?}");
    }
}
