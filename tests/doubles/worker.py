"""``moe``, with the doubles of this folder registered: what acceptance tests start their workers from."""

from experts import kinds
from jobs.cli.main import main
from tests.doubles.engines import ENGINES
from tests.doubles.routers import ROUTERS

kinds.ENGINES.update(ENGINES)
kinds.ROUTERS.update(ROUTERS)

if __name__ == "__main__":
    main()
