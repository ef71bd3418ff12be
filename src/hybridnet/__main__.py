"""``python -m hybridnet``: the command line."""

from hybridnet.cli.main import main

main()
