"""The whole of params.yaml as one frozen object."""

import difflib

from pydantic import ValidationError

from core.errors import ConfigError, UnknownAgent
from core.settings.learning import (
    Environment,
    Features,
    Gate,
    Monitor,
    Ppo,
    Sac,
    Search,
    Size,
    Split,
    Training,
    Validation,
)
from core.settings.problems import first_problem
from core.settings.section import Name, Section
from core.settings.trading import (
    Account,
    Agent,
    Alerts,
    Costs,
    Paper,
    Portfolio,
    RiskLimits,
    Shadow,
)


class Demo(Section):
    """What ``ratchet demo`` runs."""

    agents: tuple[str, ...] = ("aapl", "ixic3x", "planted")
    size: str = "demo"


class Params(Section):
    """The whole of params.yaml."""

    agents: dict[Name, Agent]
    account: Account = Account()
    costs: Costs = Costs()
    risk: RiskLimits = RiskLimits()
    validation: Validation = Validation()
    features: Features = Features()
    split: Split = Split()
    environment: Environment = Environment()
    ppo: Ppo = Ppo()
    sac: Sac = Sac()
    training: Training = Training()
    search: Search = Search()
    gate: Gate = Gate()
    monitor: Monitor = Monitor()
    paper: Paper = Paper()
    portfolio: Portfolio = Portfolio()
    shadow: Shadow = Shadow()
    alerts: Alerts = Alerts()
    demo: Demo = Demo()

    def agent(self, name: str) -> Agent:
        """Return the entry ``agents.<name>``; raise ``UnknownAgent`` with the nearest name."""
        if name in self.agents:
            return self.agents[name]
        near = difflib.get_close_matches(name, self.agents, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        known = ", ".join(sorted(self.agents))
        raise UnknownAgent(f"no agent {name!r} in params.yaml; {hint}known agents: {known}")

    def risk_for(self, name: str, where: str = "params.yaml") -> RiskLimits:
        """Return ``risk:`` with the overrides of one agent's ``limits:``; raise ``ConfigError``."""
        limits = self.risk.model_dump() | self.agent(name).limits
        try:
            return RiskLimits.model_validate(limits)
        except ValidationError as error:
            raise first_problem(error, where, RiskLimits, ("agents", name, "limits")) from error

    def size(self, name: str) -> Size:
        """Return ``search.sizes.<name>``."""
        if name not in self.search.sizes:
            known = ", ".join(sorted(self.search.sizes))
            raise ConfigError(f"no size {name!r} in params.yaml search.sizes; known: {known}")
        return self.search.sizes[name]
