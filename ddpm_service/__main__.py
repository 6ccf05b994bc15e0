"""The `ddpm` command from its first moment: Ctrl-C ends it in silence also while its parts are still loaded."""

from __future__ import annotations

import sys


def main() -> None:
    """Run `ddpm`; Ctrl-C ends it with 130, SIGTERM with 143, both with everything that it has started."""
    try:
        from ddpm_service.cli import run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
