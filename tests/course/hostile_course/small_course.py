"""pytest plugin (-p small_course): the grader sees a course of one exercise, 90_small, not the real one."""

from pathlib import Path

from bigbird_mini.course import kernel, submission

submission.MANIFEST = Path(__file__).with_name("manifest.json")
submission.manifest.cache_clear()
kernel.PROLOGUE = kernel.PROLOGUE.replace("bigbird_mini.course.checking", "small_check")
kernel.GENUINE = '__import__("small_check").check'
