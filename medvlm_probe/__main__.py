"""`python -m medvlm_probe` is `medvlm-probe`, for where scripts are not on the path."""

from medvlm_probe.cli.main import main

if __name__ == "__main__":
    main()
