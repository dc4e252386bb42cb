"""``params.yaml`` as one frozen object: whatever changes a result, and nothing else.

Each class is one section of the file; a field's comment gives its unit: ``trading.py`` what trades
and under which limits and costs, ``learning.py`` what lies between the bars and the gate. Unknown
keys, wrong types and impossible values end in one ``ConfigError`` naming file, key, what was found
and what would do. Where things run, and secrets, come from the environment and never from here.
"""

from core.settings.file import load_params, parse_params
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
from core.settings.params import Demo, Params
from core.settings.section import (
    INTERVAL_SECONDS,
    Interval,
    Name,
    Section,
    Source,
    Symbol,
    check_symbol,
)
from core.settings.trading import (
    LONGEST_TIMER_SECONDS,
    Account,
    Agent,
    Alerts,
    Costs,
    Paper,
    Portfolio,
    RiskLimits,
    Shadow,
)

__all__ = [
    "INTERVAL_SECONDS",
    "LONGEST_TIMER_SECONDS",
    "Account",
    "Agent",
    "Alerts",
    "Costs",
    "Demo",
    "Environment",
    "Features",
    "Gate",
    "Interval",
    "Monitor",
    "Name",
    "Paper",
    "Params",
    "Portfolio",
    "Ppo",
    "RiskLimits",
    "Sac",
    "Search",
    "Section",
    "Shadow",
    "Size",
    "Source",
    "Split",
    "Symbol",
    "Training",
    "Validation",
    "check_symbol",
    "load_params",
    "parse_params",
]
