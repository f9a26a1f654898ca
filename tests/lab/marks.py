"""What tests of the lab are marked with: that they need hosts, and why there are none here."""

import pytest

from tests.lab.network import why_no_lab

ON_HOSTS = (pytest.mark.hosts, pytest.mark.skipif(bool(why_no_lab()), reason=why_no_lab()))
ON_A_CLUSTER = (*ON_HOSTS, pytest.mark.docker, pytest.mark.etcd)
