//! What was before the processes of a run begin.

use std::collections::HashSet;
use std::time::Duration;

use pgrecall_repo::RepoError;
use pgrecall_repo::gc::{live_chunks, rewrite};
use pgrecall_repo::id::PackId;

use super::Bench;
use crate::actors::collect::{half, retire_all};
use crate::actors::{Command, Context, Habits, chain};
use crate::planted::Plant;
use crate::schedule::Scheduler;
use crate::store::Waits;

/// What was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// Whatever the seed says.
    Any,
    /// Two backups, of which the first may have expired. A collection may have died, or has retired
    /// packs, needed or not. The database wants again what it had at first.
    Ripe,
    /// A certain one, in which certain commands begin.
    Scene(Scene),
}

/// What was before, where a certain thing may go wrong in a few more steps: that those steps come
/// in a certain order is left to chance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scene {
    /// A backup has expired, and nobody has retired its packs. A new one wants them.
    Unneeded,
    /// Packs are retired that are needed yet, and an expiry is about to begin.
    Doomed,
    /// Each chunk lies in two packs.
    Copies,
    /// A backup has expired, and a put of one of its packs is on its way yet.
    Echo,
    /// Three backups, and one that died. The log of expired backups is about to be tidied.
    Freed,
    /// Two backups of a standby that stood still: no WAL says which of them is the newer.
    Twins,
    /// Four backups. Some expire, and some are held.
    Held,
    /// A backup has expired. The marker that retires its packs may come late.
    Astray,
}

impl Scene {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Unneeded,
        Self::Doomed,
        Self::Copies,
        Self::Echo,
        Self::Freed,
        Self::Twins,
        Self::Held,
        Self::Astray,
    ];

    /// The commands that begin in it: of some seeds one more than it takes.
    #[must_use]
    pub fn cast(self, seed: u64) -> Vec<Command> {
        use Command::{Backup, Collect, Expire, Hold};
        let (cast, another, seldom) = match self {
            Self::Unneeded | Self::Astray => (vec![Collect, Backup], Collect, 2),
            Self::Doomed => (vec![Collect, Collect, Backup, Expire, Collect], Backup, 4),
            Self::Copies => (vec![Collect, Collect], Backup, 4),
            Self::Echo => (vec![Collect, Backup], Collect, 4),
            Self::Freed => (vec![Expire, Collect, Expire], Collect, 4),
            Self::Twins => (vec![Expire, Expire], Backup, 4),
            Self::Held => (vec![Expire, Hold, Expire], Hold, 2),
        };
        let more = (seed % seldom == seldom - 1).then_some(another);
        cast.into_iter().chain(more).collect()
    }

    /// Whose turn it is in it.
    #[must_use]
    pub const fn scheduler(self) -> Scheduler {
        let (looks, in_order) = match self {
            // A collection lists rounds for the fifth time when it decides what goes.
            Self::Doomed | Self::Copies => (6, 500),
            Self::Astray => (6, 700),
            Self::Unneeded | Self::Echo | Self::Freed | Self::Twins | Self::Held => (4, 0),
        };
        Scheduler::Places { most: 8, looks, in_order }
    }

    /// A part of names on whose requests faults fall in it.
    #[must_use]
    pub const fn focus(self) -> Option<&'static str> {
        match self {
            Self::Echo => Some("/packs/"),
            Self::Astray => Some("/retired/"),
            Self::Unneeded
            | Self::Doomed
            | Self::Copies
            | Self::Freed
            | Self::Twins
            | Self::Held => None,
        }
    }

    /// How they behave.
    fn habits(self) -> Habits {
        let usual = Habits { sweeps_first: 1000, sweeps_all: 1000, ..Habits::default() };
        match self {
            Self::Unneeded => Habits { ends_living: 600, ..usual },
            Self::Doomed => Habits { keeps_one: 1000, merges: 100, ..usual },
            Self::Copies => Habits {
                retires_half: 1000,
                merges: 100,
                sweeps_first: 300,
                sweeps_all: 200,
                ..usual
            },
            Self::Echo => Habits { merges: 200, ..usual },
            Self::Freed => Habits { ends_unlisted: 900, tidies: 900, ..usual },
            Self::Twins => Habits { keeps_one: 700, ..usual },
            Self::Held => Habits { keeps_one: 400, releases: 100, ..usual },
            Self::Astray => usual,
        }
    }
}

impl Bench<'_> {
    /// Some history, made by a product that has no bugs.
    pub(super) async fn prepare(&mut self) {
        match self.settings.history {
            History::Any => self.prepare_any().await,
            History::Ripe => self.prepare_ripe().await,
            History::Scene(scene) => self.prepare_scene(scene).await,
        }
        self.world.lock().tell("the history ends here");
    }

    async fn prepare_ripe(&mut self) {
        self.backup_alone(Command::Backup).await;
        for _ in 0..6 {
            self.write();
        }
        self.backup_alone(Command::Backup).await;
        if self.chance.happens(500) {
            self.expire_to_one().await;
        }
        match self.chance.below(3) {
            0 => {}
            1 => {
                let dies = Waits::Dies(10 + self.chance.below(50));
                self.until(Command::Collect, dies).await;
            }
            _ => {
                let packs = self.world.lock().oracle.pack_ids();
                self.retire_some(packs).await;
            }
        }
        self.database.lock().return_to_first();
    }

    async fn prepare_any(&mut self) {
        for _ in 0..self.chance.below(4) {
            for _ in 0..self.chance.below(4) {
                self.write();
            }
            self.backup_alone(Command::Backup).await;
        }
        for _ in 0..self.chance.below(4) {
            let command = match self.chance.below(4) {
                0 => Command::Expire,
                // It gets no WAL, but it gets far.
                1 => Command::Backup,
                _ => Command::Collect,
            };
            let dies = Waits::Dies(self.chance.below(60));
            let waits = if self.chance.happens(700) { dies } else { Waits::No };
            if (command, waits) != (Command::Backup, Waits::No) {
                self.until(command, waits).await;
            }
        }
    }

    async fn prepare_scene(&mut self, scene: Scene) {
        match scene {
            Scene::Unneeded | Scene::Astray => {
                self.two_backups().await;
                self.expire_to_one().await;
            }
            Scene::Doomed => {
                let first = self.two_backups().await;
                self.retire_some(first).await;
            }
            Scene::Copies => {
                self.backup_alone(Command::Backup).await;
                self.copy_all().await;
            }
            Scene::Echo => {
                let number = self.chance.below(4);
                self.backup_with(Command::Backup, Waits::Loses(number)).await;
                self.replace_all();
                self.backup_alone(Command::Backup).await;
                self.expire_to_one().await;
            }
            Scene::Freed => {
                for _ in 0..3 {
                    self.backup_alone(Command::Backup).await;
                    self.write();
                }
                let dies = Waits::Dies(10 + self.chance.below(30));
                self.until(Command::Backup, dies).await;
            }
            Scene::Held => {
                for _ in 0..4 {
                    self.backup_alone(Command::Backup).await;
                    self.write();
                }
            }
            Scene::Twins => {
                self.replace_all();
                self.database.lock().stop_replay();
                self.backup_alone(Command::StandbyBackup).await;
                // The WAL that it needs is there by now.
                self.until(Command::StandbyBackup, Waits::No).await;
                self.database.lock().replay_stands_at = None;
            }
        }
        self.database.lock().return_to_first();
        self.habits = scene.habits();
    }

    /// Two backups that have little in common; gives the packs of the first.
    async fn two_backups(&mut self) -> Vec<PackId> {
        self.backup_alone(Command::Backup).await;
        let first = self.world.lock().oracle.pack_ids();
        self.replace_all();
        self.backup_alone(Command::Backup).await;
        first
    }

    fn replace_all(&mut self) {
        self.database.lock().replace_all(&mut self.chance);
    }

    /// Its rules are drawn, too.
    async fn expire_to_one(&mut self) {
        for _ in 0..8 {
            if self.world.lock().oracle.valid().len() > 1 {
                self.alone(Command::Expire).await;
            }
        }
    }

    /// Retires half of these packs, needed or not: who retires has only a guess.
    async fn retire_some(&mut self, packs: Vec<PackId>) {
        let Some(mut context) = self.context(Command::Collect, Waits::No).await else { return };
        // What is stored under wrong names was so before.
        context.plant = self.settings.plant.filter(|plant| *plant == Plant::MarkerNamedAfterPack);
        let packs = half(&mut self.chance, packs);
        if let Err(error) = retire_all(&context, packs, &mut Vec::new()).await {
            self.violated("L1", format!("a retirement that was left alone: {}", chain(&error)));
        }
    }

    /// A collection copies what is needed, and dies before it retires what it was copied from.
    async fn copy_all(&mut self) {
        let Some(context) = self.context(Command::Collect, Waits::No).await else { return };
        let packs = self.world.lock().oracle.pack_ids();
        if let Err(error) = copy(&context, packs.into_iter().collect()).await {
            self.violated("L1", format!("a copy that was left alone: {}", chain(&error)));
        }
    }

    /// A backup with the WAL that it needs.
    pub(super) async fn backup_alone(&mut self, command: Command) {
        self.backup_with(command, Waits::No).await;
    }

    async fn backup_with(&mut self, command: Command, waits: Waits) {
        let Some(backup) = self.context(command, waits).await else { return };
        let process = backup.process;
        let backup = tokio::task::spawn_local(backup.run(command));
        // The backup fills its segment up, and waits for it.
        tokio::task::yield_now().await;
        while !backup.is_finished() {
            self.alone(Command::Archive).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        self.bury(process);
    }
}

async fn copy(context: &Context, packs: HashSet<PackId>) -> Result<(), RepoError> {
    let (sealed, domain) = (&context.cluster.sealed, context.cluster.domain());
    let live = live_chunks(sealed, domain).await?;
    rewrite(sealed, domain, &packs, &HashSet::new(), &live).await.map(drop)
}
