"""The simulated container manager keeps what every driver promises, as far as no real process is needed to see it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from random import Random

import pytest

from agent.driver import Driver
from agent.drivers.local_image import BUSYBOX_IMAGE
from foundation.clock import SystemClock
from tests.conformance.driver_lab import DriverLab, tidied
from tests.conformance.test_driver import (  # noqa: F401  # run here by being named here
    test_a_child_beyond_its_memory_is_seen_as_oom,
    test_a_container_is_created_then_runs_then_has_an_exit_code,
    test_a_hundred_thousand_lines_of_logs_arrive_whole,
    test_a_list_holds_what_has_all_the_labels,
    test_a_log_tells_when_each_line_was_written_and_goes_on_from_a_time,
    test_a_main_process_beyond_its_memory_is_seen_as_oom,
    test_a_missing_image_that_may_not_be_pulled_is_an_image_error,
    test_a_missing_limit_is_refused,
    test_a_missing_program_is_named,
    test_a_name_held_with_other_labels_is_refused,
    test_a_pull_that_cannot_work_is_an_image_error_for_all_who_asked,
    test_a_taken_port_is_named,
    test_an_unknown_container_is_none_and_can_be_stopped_and_removed,
    test_creating_twice_returns_the_same_container,
    test_events_hint_at_a_container_that_ends,
    test_execute_ends_in_time_and_leaves_no_process,
    test_execute_returns_exit_code_and_output,
    test_executing_a_missing_program_has_an_exit_code,
    test_executing_in_a_stopped_container_is_an_error,
    test_following_logs_ends_with_the_container,
    test_images_that_are_there_need_no_registry,
    test_info_names_the_manager_and_its_version,
    test_logs_keep_stdout_and_stderr_apart,
    test_logs_of_an_unknown_container_are_not_found,
    test_starting_a_running_container_leaves_it_alone,
    test_starting_an_unknown_container_is_not_found,
    test_stop_and_remove_may_be_repeated,
    test_stop_kills_what_outlasts_its_grace,
    test_stop_lets_a_container_end_by_its_signal,
    test_stopping_a_container_that_never_ran_is_fine,
    test_the_output_of_execute_is_cut,
)
from tests.conformance.test_driver_failures import (  # noqa: F401
    manager,
    test_a_create_whose_answer_was_lost_is_adopted,
    test_an_agent_that_restarts_finds_what_runs,
    test_events_and_followed_logs_end_when_the_manager_dies,
)
from tests.conformance.test_driver_groups import (  # noqa: F401
    test_without_its_sandbox_a_container_cannot_start_and_is_not_to_blame,
)
from tests.simulation.driver import SimDriver
from tests.simulation.runtime import Runtime


@dataclass(frozen=True)
class SimulatedManager:
    """A Manager that is simulated, here on real time."""

    runtime: Runtime

    def kill(self) -> None:
        self.runtime.fail(kills_containers=False)

    def start(self) -> None:
        self.runtime.come_back()

    def pause(self) -> None:
        self.runtime.is_hung = True

    def resume(self) -> None:
        self.runtime.come_back()


@pytest.fixture
def lab() -> DriverLab:
    runtime = Runtime("n1", SystemClock(), Random(7), {BUSYBOX_IMAGE: {}})
    runtime.present.add(BUSYBOX_IMAGE)
    return DriverLab("", "", lambda timeout_s: SimDriver(runtime, timeout_s=timeout_s), SimulatedManager(runtime))


@pytest.fixture
async def driver(lab: DriverLab) -> AsyncIterator[Driver]:
    async with tidied(lab.driver(timeout_s=1.0)) as driver:
        yield driver
