//! A gateway dies, and those who were on it don't come back: whoever watches them has to see it.

use std::{os::unix::process::ExitStatusExt, time::Duration};

use anyhow::{Context, Result, ensure};
use chat_client::ids::{ConversationId, UserId};
use chat_shared::limits::TYPING_EXPIRY;
use tokio::time::Instant;

use crate::{
    audit::{Check, Diary, News},
    chaos::{crowd::Device, line::Line, presence, trial::Trial},
    fleet::Service,
    person::Person,
    process::Signal,
    wait,
};

/// Those who go with the gateway.
const GUESTS: usize = 3;
/// Those who watch them from another one.
const WATCHERS: usize = 3;
/// The gateway that dies.
const VICTIM: usize = 0;
/// How long users of a gateway that died may seem to be online.
const OFFLINE_WITHIN: Duration = Duration::from_secs(30);
/// How long what is pushed may take to a client and into its diary on a busy machine.
const ON_ITS_WAY: Duration = Duration::from_millis(500);
/// How much longer than it may take a change is waited for.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long changes may take while nothing is broken, a reconnect included.
const CALM_DEADLINE: Duration = Duration::from_secs(45);

/// Somebody who knows only one gateway.
struct Guest {
    person: Person,
    line: Line,
}

/// Guests on one gateway, and those who watch them on another.
struct Party<'a> {
    room: ConversationId,
    guests: Vec<Guest>,
    watchers: Vec<&'a Device>,
}

/// Several times: its users are offline within 30 s for everybody who watches them, and write no more after 5 s.
pub async fn gateway_killed(trial: &mut Trial<'_>) -> Result<()> {
    let mut party = Party::meet(trial).await?;
    for _ in 0..trial.scale.of(4, 1) {
        round(trial, &party).await?;
    }
    for guest in &mut party.guests {
        guest.person.leave().await?;
    }
    for device in &party.watchers {
        presence::watch(trial.crowd, device, &[]).await?;
    }
    Ok(())
}

async fn round(trial: &mut Trial<'_>, party: &Party<'_>) -> Result<()> {
    let gateway = trial.ground.fleet.gateway(VICTIM);
    let pairs = party.guests.len() * party.watchers.len();
    let came = party.until_all("the guests' coming", CALM_DEADLINE, Diary::online, true).await;
    let wrote = wait::until("typing", CALM_DEADLINE, || async {
        party.type_on()?;
        Ok((party.count(|diary, user_id| diary.typing(party.room, user_id), true) == pairs).then_some(()))
    })
    .await;
    trial.bite(
        came.is_ok() && wrote.is_ok(),
        format!(
            "{} people were on {}, and {} others saw all of them online and writing",
            party.guests.len(),
            gateway.name(),
            party.watchers.len()
        ),
    );
    trial.pause(0..1500).await;
    party.type_on()?;
    // Their clients try to come back, and find nobody.
    party.guests.iter().for_each(|guest| guest.line.lead_to(None));
    let killed = Instant::now();
    gateway.kill().await?;
    trial.fault(&format!("{} is killed with SIGKILL, while {} people write on it", gateway.name(), party.guests.len()));
    let status = gateway.process().exited().await?;
    trial.bite(status.signal() == Some(Signal::KILL.as_raw()), format!("{} was ended by the signal", gateway.name()));

    let limit = TYPING_EXPIRY + ON_ITS_WAY;
    let typing = |diary: &Diary, user_id: UserId| diary.typing(party.room, user_id);
    party.gone(trial, Check::TypingLate, killed, limit, typing).await;
    party.gone(trial, Check::PresenceLate, killed, OFFLINE_WITHIN, Diary::online).await;

    gateway.start_ready().await?;
    party.guests.iter().for_each(|guest| guest.line.lead_to(Some(Service::address(gateway))));
    let back = party.until_all("their return", CALM_DEADLINE, Diary::online, true).await;
    trial.bite(back.is_ok(), format!("all {} were seen online again after it was back", party.guests.len()));
    Ok(())
}

impl<'a> Party<'a> {
    async fn meet(trial: &Trial<'a>) -> Result<Self> {
        let (fleet, crowd) = (&trial.ground.fleet, trial.crowd);
        let on_victim = |device: &&Device| {
            let own = format!("http://{}", device.lines[VICTIM].address());
            device.person.gateway().is_ok_and(|gateway| gateway != own)
        };
        let watchers: Vec<_> = crowd.people().iter().filter(on_victim).take(WATCHERS).collect();
        ensure!(!watchers.is_empty(), "nobody is on another gateway");
        let mut guests = Vec::with_capacity(GUESTS);
        for number in 1..=GUESTS {
            let line = Line::open(Some(Service::address(fleet.gateway(VICTIM))), None).await?;
            let gateways = vec![format!("http://{}", line.address())];
            let person = Person::appear(&format!("guest-{number}"), fleet.kaha(), gateways).await?;
            guests.push(Guest { person, line });
        }
        let guest_ids: Vec<_> = guests.iter().map(|guest| guest.person.user_id).collect();
        let (host, others) = watchers.split_first().context("somebody watches")?;
        let members = others.iter().map(|device| device.person.user_id).chain(guest_ids.iter().copied());
        let room = host.client()?.1.create_group(members).await?.conversation_id;
        for device in &watchers {
            presence::watch(crowd, device, &guest_ids).await?;
        }
        Ok(Self { room, guests, watchers })
    }

    /// All guests go on writing; their clients tell it as often as is needed.
    fn type_on(&self) -> Result<()> {
        for guest in &self.guests {
            guest.person.client()?.set_typing(self.room, true);
        }
        Ok(())
    }

    /// For how many guests and watchers something is as `wanted`.
    fn count(&self, what: impl Fn(&Diary, UserId) -> Option<News>, wanted: bool) -> usize {
        self.news(what).into_iter().flatten().filter(|(is_so, _)| *is_so == wanted).count()
    }

    /// What each watcher knows of each guest.
    fn news(&self, what: impl Fn(&Diary, UserId) -> Option<News>) -> Vec<Option<News>> {
        let mut news = Vec::new();
        for device in &self.watchers {
            let diary = device.person.diary();
            news.extend(self.guests.iter().map(|guest| what(&diary, guest.person.user_id)));
        }
        news
    }

    async fn until_all(
        &self,
        name: &str,
        deadline: Duration,
        what: impl Fn(&Diary, UserId) -> Option<News>,
        wanted: bool,
    ) -> Result<()> {
        let pairs = self.guests.len() * self.watchers.len();
        wait::until(name, deadline, || async { Ok((self.count(&what, wanted) == pairs).then_some(())) }).await
    }

    /// Waits until it is no more so for anybody, and finds who was told too late.
    async fn gone(
        &self,
        trial: &mut Trial<'_>,
        check: Check,
        since: Instant,
        limit: Duration,
        what: impl Fn(&Diary, UserId) -> Option<News>,
    ) {
        let left = (since + limit + PATIENCE).saturating_duration_since(Instant::now());
        // Who is told too late, or not at all, is seen below.
        _ = self.until_all(check.label(), left, &what, false).await;
        let took: Vec<_> = self
            .news(what)
            .into_iter()
            .map(|news| news.filter(|(is_so, _)| !is_so).map(|(_, at)| at.saturating_duration_since(since)))
            .collect();
        let late: Vec<_> = took.iter().filter(|took| took.is_none_or(|took| took > limit)).collect();
        let first = late.first().map(|took| match took {
            Some(took) => format!("{} ms after the gateway was killed", took.as_millis()),
            None => "never".to_owned(),
        });
        let slowest = took.iter().flatten().max().map_or(0, Duration::as_millis);
        trial.told.line(&format!(
            "told within {slowest} ms: no longer {}",
            match check {
                Check::TypingLate => "writing",
                _ => "online",
            }
        ));
        trial.promise(check, late.len(), took.len(), first);
    }
}
