"""The flow ``parity``: what was traded in a session is lived through again by training's path.

Owns what follows: the run's artifact, and a failed run, which is told to people, where trading was
not what training would have done. The replay is ``pipelines/certificate.py``'s, which also leaves
the result on each version.
"""

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from core.errors import ExecutionError
from core.home import Home
from core.masking import discreetly
from core.settings import load_params
from flows import announce


@flow(
    name="parity",
    flow_run_name="parity-{session}",
    on_failure=[announce.failed],
    on_crashed=[announce.failed],
)
@discreetly
def parity(session: int = 0) -> int:
    """Certify a recorded session, bit by bit; fail where it is not what training would do.

    Args:
        session: As `ratchet status` numbers it; 0: the newest.
    """
    from pipelines.certificate import certify, newest_session

    home = Home.from_environment()
    chosen = session or newest_session(home)
    if chosen is None:
        create_markdown_artifact("nothing was traded yet", key="parity")
        return 0
    certificates = certify(home, load_params(home.params_file), chosen)
    said = "\n".join(f"- {one}" for one in certificates)
    create_markdown_artifact(said, key="parity", description=f"session {chosen}")
    if different := [str(one) for one in certificates if not one.passed]:
        raise ExecutionError("; ".join(different))
    return len(certificates)
